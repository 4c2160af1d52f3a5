#include "tools/sweep/calibration_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <vector>

#include "tools/common/text_table.h"

namespace pi0::tools {
namespace {

constexpr float outlier_ratio = 10;
constexpr std::size_t shown_sites = 5;

struct Outliers {
  const model::MatmulSite* site;
  std::int64_t channel;        // the largest
  float absmax, median;        // of that channel, and of the median channel
  std::int64_t outlier_count;  // channels above the ratio

  float ratio() const { return median > 0 ? absmax / median : 0; }
};

// `absmax` [S, In].
Outliers outliers_of(const model::MatmulSite& site, const at::Tensor& absmax) {
  const at::Tensor channels = absmax.amax(0);
  const at::Tensor used = channels.masked_select(channels > 0);
  const float median = used.numel() > 0 ? at::quantile(used, 0.5).item<float>() : 0;
  const auto channel = channels.argmax().item<std::int64_t>();
  return {&site, channel, channels[channel].item<float>(), median,
          channels.gt(median * outlier_ratio).sum().item<std::int64_t>()};
}

using Lines = std::vector<std::vector<std::string>>;

Lines component_lines(const std::vector<Outliers>& sites) {
  Lines lines = {{"component", "sites", "max / median", fmt::format("channels > {:.0f}x", outlier_ratio)}};
  for (const model::Component component : {model::Component::vision, model::Component::language,
                                           model::Component::action_expert, model::Component::action_head}) {
    std::int64_t count = 0, channels = 0;
    float largest = 0;
    for (const Outliers& each : sites) {
      if (each.site->component != component) continue;
      ++count;
      channels += each.outlier_count;
      largest = std::max(largest, each.ratio());
    }
    if (count == 0) continue;
    lines.push_back({std::string(name_of(component)), std::to_string(count), fmt::format("{:.4g}", largest),
                     std::to_string(channels)});
  }
  return lines;
}

// Whether both are of one input: query, key and value projections, for example. They lie in one module.
bool share_input(const Outliers& a, const Outliers& b) {
  const auto module_of = [](const Outliers& of) { return of.site->path.substr(0, of.site->path.rfind('.')); };
  const auto figures_of = [](const Outliers& of) {
    return std::tuple(of.channel, of.absmax, of.median, of.outlier_count, of.site->in_features);
  };
  return figures_of(a) == figures_of(b) && module_of(a) == module_of(b);
}

Lines site_lines(std::vector<Outliers> sites) {
  std::ranges::stable_sort(sites, std::greater{}, &Outliers::ratio);
  sites.erase(std::unique(sites.begin(), sites.end(), share_input), sites.end());
  sites.resize(std::min(sites.size(), shown_sites));
  Lines lines = {{"channels that stand out most", "max / median", "channel", "max", "median"}};
  for (const Outliers& each : sites) {
    lines.push_back({each.site->path, fmt::format("{:.4g}", each.ratio()), std::to_string(each.channel),
                     fmt::format("{:.4g}", each.absmax), fmt::format("{:.4g}", each.median)});
  }
  return lines;
}

}  // namespace

std::string calibration_summary(const model::SiteList& sites, const std::map<std::string, at::Tensor>& tensors) {
  std::vector<Outliers> found;
  for (const model::MatmulSite& site : sites.all()) {
    const auto absmax = tensors.find(site.path + ".absmax");
    if (absmax != tensors.end()) found.push_back(outliers_of(site, absmax->second));
  }
  return text_table(component_lines(found)) + "\n" + text_table(site_lines(found));
}

}  // namespace pi0::tools
