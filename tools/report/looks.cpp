#include "tools/report/looks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tools/report/report_parts.h"

namespace pi0::tools {

const nlohmann::ordered_json& looks() {
  static const auto content = nlohmann::ordered_json::parse(page_looks());
  return content;
}

std::string light_colour(std::string_view name) {
  const std::string property = fmt::format("--{}: ", name);
  const std::size_t from = page_style().find(property) + property.size();  // the light theme comes first
  return std::string(page_style().substr(from, page_style().find(';', from) - from));
}

std::size_t look_count() { return looks().at("lines").size(); }

LineLook line_look(std::size_t place) {
  const auto& look = looks().at("lines").at(place % look_count());
  return {.colour = light_colour(fmt::format("c{}", look.at(0).get<int>())),
          .dash = look.at(1).get<std::string>(),
          .mark = looks().at("marks").at(look.at(2).get<std::string>()).get<std::string>()};
}

Rgb colour_at(const std::string& stops, double share) {
  const auto& list = looks().at(stops);
  const double place = std::clamp(share, 0.0, 1.0) * static_cast<double>(list.size() - 1);
  const std::size_t from = std::min(static_cast<std::size_t>(place), list.size() - 2);
  const auto channel = [&](std::size_t i) {
    const double first = list[from][i].get<double>(), second = list[from + 1][i].get<double>();
    return static_cast<int>(std::lround(first + (second - first) * (place - static_cast<double>(from))));
  };
  return {channel(0), channel(1), channel(2)};
}

std::string css(const Rgb& colour) { return fmt::format("#{:02x}{:02x}{:02x}", colour.red, colour.green, colour.blue); }

std::string ink_on(const Rgb& colour) {
  const auto linear = [](int channel) { return std::pow((channel / 255.0 + 0.055) / 1.055, 2.4); };
  const double luminance = 0.2126 * linear(colour.red) + 0.7152 * linear(colour.green) + 0.0722 * linear(colour.blue);
  return luminance > 0.179 ? "#000000" : "#ffffff";
}

LogScale::LogScale(const std::vector<std::optional<double>>& values) {
  double least = 0;
  for (const auto& value : values) {
    if (!value || !(*value > 0)) continue;
    high_ = std::max(high_, *value);
    least = least > 0 ? std::min(least, *value) : *value;
  }
  low_ = std::max(least, high_ * 1e-4);
  is_cut_ = low_ > least;
}

double LogScale::share(double value) const {
  return high_ > low_ ? std::log10(value / low_) / std::log10(high_ / low_) : 1;
}

}  // namespace pi0::tools
