#include "tools/common/print_layers.h"

#include <nlohmann/json.hpp>

#include "model/pi0.h"
#include "tools/common/print.h"

namespace pi0::tools {

void print_layers(const model::ModelConfig& config, const LayerListing& listing) {
  model::ShapeRecorder shapes;
  const model::Pi0 model(config, shapes, model::Precision::float32, {});
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  const model::SiteList& sites = model.sites();
  for (const model::MatmulSite& site : listing.all ? sites.of_all_kinds() : sites.all()) {
    if (listing.as_json) {
      rows.push_back({{"layer", site.path},
                      {"component", name_of(site.component)},
                      {"in_features", site.in_features},
                      {"out_features", site.out_features},
                      {"kind", name_of(site.kind)}});
    } else {
      print("{:<14} {:<10} {:>7} {:>7}  {}\n", name_of(site.component), name_of(site.kind), site.in_features,
            site.out_features, site.path);
    }
  }
  if (listing.as_json) print("{}\n", rows.dump(1));
}

}  // namespace pi0::tools
