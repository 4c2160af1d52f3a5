// Names of number formats, and which combinations of their parts have a meaning.
#include <algorithm>
#include <array>
#include <stdexcept>

#include "quant/formats/number_format.h"

namespace pi0::formats {
namespace {

struct NamedRule {
  Rule rule;
  std::string_view name;
  std::string_view place;  // where it has a meaning, for messages
};
constexpr std::array rules = {
    NamedRule{Rule::absmax, "absmax", "of every granularity"},
    NamedRule{Rule::scaled, "scaled", "of float8_e4m3:tensor and float8_e5m2:tensor"},
    NamedRule{Rule::po2, "po2", "of float8_e4m3:tensor and float8_e5m2:tensor"},
    NamedRule{Rule::floor, "floor", "of groups of floats of 8, 6 or 4 bits, and of int8"},
    NamedRule{Rule::ceil, "ceil", "of groups of floats of 8, 6 or 4 bits"},
    NamedRule{Rule::even, "even", "of groups of floats of 8, 6 or 4 bits"},
    NamedRule{Rule::rceil, "rceil", "of groups of floats of 8, 6 or 4 bits"},
    NamedRule{Rule::two_level, "two_level", "of float4_e2m1:group16 (nvfp4)"},
    NamedRule{Rule::one_level, "one_level", "of float4_e2m1:group16 (nvfp4)"},
    NamedRule{Rule::asymmetric, "asymmetric", "of integers by tensor, row or group"},
};
constexpr std::string_view static_part = "static";  // the last part of a name, after its rule

constexpr const NamedRule& named(Rule rule) { return rules[static_cast<std::size_t>(rule)]; }

struct NamedGranularity {
  std::string_view name;
  Granularity granularity;
  int group;
};
constexpr std::array granularities = {
    NamedGranularity{"tensor", Granularity::tensor, 0},  NamedGranularity{"row", Granularity::row, 0},
    NamedGranularity{"group16", Granularity::group, 16}, NamedGranularity{"group32", Granularity::group, 32},
    NamedGranularity{"group64", Granularity::group, 64}, NamedGranularity{"group128", Granularity::group, 128},
    NamedGranularity{"tile128", Granularity::tile, 128},
};

struct Preset {
  std::string_view name;
  NumberFormat format;
};
constexpr std::array presets = {
    Preset{"mxfp8_e4m3", {Format::float8_e4m3, Granularity::group, 32, Rule::floor}},
    Preset{"mxfp8_e5m2", {Format::float8_e5m2, Granularity::group, 32, Rule::floor}},
    Preset{"mxfp6_e2m3", {Format::float6_e2m3, Granularity::group, 32, Rule::floor}},
    Preset{"mxfp6_e3m2", {Format::float6_e3m2, Granularity::group, 32, Rule::floor}},
    Preset{"mxfp4", {Format::float4_e2m1, Granularity::group, 32, Rule::floor}},
    Preset{"mxint8", {Format::int8, Granularity::group, 32, Rule::floor}},
    Preset{"nvfp4", {Format::float4_e2m1, Granularity::group, 16, Rule::two_level}},
};

// Rules with a meaning for the element and granularity.
std::vector<Rule> rules_of(const NumberFormat& format) {
  const bool by_group = format.granularity == Granularity::group, by_tensor = format.granularity == Granularity::tensor;
  std::vector<Rule> possible = {Rule::absmax};
  const auto add = [&](bool is_possible, std::initializer_list<Rule> more) {
    if (is_possible) possible.insert(possible.end(), more);
  };
  if (is_integer(format.element)) {
    add(by_group && format.element == Format::int8, {Rule::floor});
    add(format.granularity != Granularity::tile, {Rule::asymmetric});
  } else {
    add(by_tensor && code_bits(format.element) == 8, {Rule::scaled, Rule::po2});
    add(by_group, {Rule::floor, Rule::ceil, Rule::even, Rule::rceil});
    add(format.element == Format::float4_e2m1 && by_group && format.group == 16, {Rule::two_level, Rule::one_level});
  }
  return possible;
}

// Rules that a preset's name may end with: those of its kind of scale.
std::vector<Rule> rules_of(const Preset& preset) {
  std::vector<Rule> possible;
  for (const Rule rule : rules_of(preset.format)) {
    NumberFormat other = preset.format;
    other.rule = rule;
    if (scale_kind(other) == scale_kind(preset.format)) possible.push_back(rule);
  }
  return possible;
}

template <class List, class Name>
std::string listed(const List& list, const Name& name) {
  std::string text;
  for (const auto& entry : list) text += (text.empty() ? "" : ", ") + std::string(name(entry));
  return text;
}

class Parser {
 public:
  explicit Parser(std::string_view name) : name_(name) {
    for (std::string_view rest = name;;) {
      const std::size_t colon = rest.find(':');
      parts_.push_back(rest.substr(0, colon));
      if (colon == std::string_view::npos) break;
      rest.remove_prefix(colon + 1);
    }
  }

  NumberFormat format() {
    const bool is_static = parts_.size() > 1 && parts_.back() == static_part;
    if (is_static) parts_.pop_back();
    NumberFormat result = dynamic_format();
    if (is_static && result.granularity != Granularity::tensor) {
      refuse("static scales are of ELEMENT:tensor, as in int8:tensor:static");
    }
    if (is_static && result.rule == Rule::asymmetric) {
      refuse("rule 'asymmetric' has no static scale, since a calibration knows magnitudes alone");
    }
    result.is_static = is_static;
    return result;
  }

 private:
  NumberFormat dynamic_format() const {
    for (const Preset& preset : presets) {
      if (preset.name == parts_[0]) return of_preset(preset);
    }
    NumberFormat result{element()};
    if (parts_.size() > 3)
      refuse("has more than three parts: ELEMENT:GRANULARITY:RULE, and of tensors :static at the end");
    if (parts_.size() == 1) {
      if (!is_integer(result.element)) return result;
      refuse(std::string(parts_[0]) + " needs values that share a scale: " + granularity_names());
    }
    if (code_bits(result.element) > 8) {
      refuse(std::string(parts_[0]) + " takes no scale, so nothing may follow it; elements with scales: " +
             listed(scaled_floats, [](Format known) { return name_of(known); }) + ", int2 ... int8");
    }
    add_granularity(result);
    if (parts_.size() == 3) add_rule(result, rules_of(result), parts_[0].size() + 1 + parts_[1].size());
    return result;
  }

  [[noreturn]] void refuse(const std::string& why) const {
    throw std::invalid_argument("format '" + std::string(name_) + "': " + why);
  }

  static std::string granularity_names() {
    return listed(granularities, [](const NamedGranularity& known) { return known.name; });
  }

  Format element() const {
    for (const Properties& row : format_table) {
      if (row.name == parts_[0]) return row.format;
    }
    refuse("'" + std::string(parts_[0]) +
           "' is unknown; known: " + listed(number_format_names(), [](const std::string& known) { return known; }));
  }

  NumberFormat of_preset(const Preset& preset) const {
    NumberFormat result = preset.format;
    if (parts_.size() > 2) refuse(std::string(preset.name) + " takes one part more at most, a rule");
    if (parts_.size() == 2) add_rule(result, rules_of(preset), preset.name.size());
    return result;
  }

  void add_granularity(NumberFormat& result) const {
    for (const NamedGranularity& known : granularities) {
      if (known.name != parts_[1]) continue;
      result.granularity = known.granularity;
      result.group = known.group;
      return;
    }
    refuse("granularity '" + std::string(parts_[1]) + "' is unknown; known: " + granularity_names());
  }

  // `owner` characters of the name are what the rule is of.
  void add_rule(NumberFormat& result, const std::vector<Rule>& possible, std::size_t owner) const {
    const std::string_view wanted = parts_.back();
    for (const Rule rule : possible) {
      if (named(rule).name != wanted) continue;
      result.rule = rule;
      return;
    }
    const std::string takes =
        std::string(name_.substr(0, owner)) + " takes: " + listed(possible, [](Rule rule) { return named(rule).name; });
    for (const NamedRule& known : rules) {
      if (known.name == wanted) {
        refuse("rule '" + std::string(wanted) + "' is " + std::string(known.place) + "; " + takes);
      }
    }
    refuse("rule '" + std::string(wanted) + "' is unknown; " + takes);
  }

  std::string_view name_;
  std::vector<std::string_view> parts_;
};

}  // namespace

NumberFormat parse_number_format(std::string_view name) { return Parser(name).format(); }

std::string name_of(const NumberFormat& format) {
  for (const Preset& preset : presets) {
    if (preset.format == format) return std::string(preset.name);
    NumberFormat of_preset = format;
    of_preset.rule = preset.format.rule;
    if (of_preset == preset.format && scale_kind(format) == scale_kind(preset.format)) {
      return std::string(preset.name) + ":" + std::string(named(format.rule).name);
    }
  }
  std::string name(name_of(format.element));
  for (const NamedGranularity& known : granularities) {
    if (known.granularity == format.granularity && known.group == format.group) name += ":" + std::string(known.name);
  }
  if (format.rule != Rule::absmax) name += ":" + std::string(named(format.rule).name);
  if (format.is_static) name += ":" + std::string(static_part);
  return name;
}

std::string file_name_of(const NumberFormat& format) {
  std::string name = name_of(format);
  std::replace(name.begin(), name.end(), ':', '-');
  return name;
}

std::vector<std::string> number_format_names() {
  std::vector<std::string> names;
  for (const Properties& row : format_table) names.emplace_back(row.name);
  for (const Preset& preset : presets) names.emplace_back(preset.name);
  return names;
}

}  // namespace pi0::formats
