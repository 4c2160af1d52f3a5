// pi0 list-layers: every linear and attention of a model with its component and sizes.
#include "tools/list_layers.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "tools/commands.h"
#include "tools/model_options.h"
#include "tools/print.h"

namespace pi0::tools {

void print_layers(const model::ModelConfig& config, bool as_json) {
  model::ShapeRecorder shapes;
  const model::Pi0 model(config, shapes, model::Precision::float32, {});
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const model::MatmulSite& site : model.sites().all()) {
    if (as_json) {
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
  if (as_json) print("{}\n", rows.dump(1));
}

void add_list_layers(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("list-layers", "List every linear and attention with component and sizes; reads no weights");
  command->footer("Example:\n  pi0 list-layers --config pi05_droid");
  const auto options = std::make_shared<ModelOptions>();
  const auto as_json = std::make_shared<bool>(false);
  add_place_options(*command, *options);
  command->add_flag("--json", *as_json, "Print a JSON list");
  command->callback([options, as_json] { print_layers(chosen_sizes(*options), *as_json); });
}

}  // namespace pi0::tools
