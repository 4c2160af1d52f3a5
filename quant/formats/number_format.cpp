#include "quant/formats/number_format.h"

#include <algorithm>

namespace pi0::formats {
namespace {

bool is_e8m0(Rule rule) { return rule >= Rule::floor && rule <= Rule::rceil; }
bool is_float8_scale(Rule rule) { return rule == Rule::two_level || rule == Rule::one_level; }

int scale_bits(const NumberFormat& format) {
  if (format.granularity == Granularity::none) return 0;
  if (is_e8m0(format.rule) || is_float8_scale(format.rule)) return 8;
  return is_integer(format.element) && format.granularity != Granularity::tensor ? 16 : 32;
}

int zero_point_bits(const NumberFormat& format) {
  return format.rule == Rule::asymmetric ? code_bits(format.element) : 0;
}

std::int64_t ceil_divide(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

std::optional<Format> plain_cast(const NumberFormat& format) {
  const bool is_plain = format.granularity == Granularity::none &&
                        std::find(all_formats.begin(), all_formats.end(), format.element) != all_formats.end();
  return is_plain ? std::optional(format.element) : std::nullopt;
}

NumberFormat for_activations(const NumberFormat& format) {
  NumberFormat result = format;
  if (format.granularity == Granularity::tile) result.granularity = Granularity::group;
  return result;
}

NumberFormat without_static(const NumberFormat& format) {
  NumberFormat result = format;
  result.is_static = false;
  return result;
}

ScaleKind scale_kind(const NumberFormat& format) {
  if (format.granularity == Granularity::none) return ScaleKind::none;
  if (is_e8m0(format.rule) || format.rule == Rule::po2) return ScaleKind::power_of_two;
  if (is_float8_scale(format.rule)) return ScaleKind::float8_group;
  const bool is_outside = format.granularity == Granularity::tensor || format.granularity == Granularity::row;
  return is_outside ? ScaleKind::row : ScaleKind::group;
}

double bits_per_value(const NumberFormat& format) {
  double values_of_scale = 0;
  if (format.granularity == Granularity::group) values_of_scale = format.group;
  if (format.granularity == Granularity::tile) values_of_scale = static_cast<double>(format.group) * format.group;
  const double of_scales = values_of_scale == 0 ? 0 : (scale_bits(format) + zero_point_bits(format)) / values_of_scale;
  return code_bits(format.element) + of_scales;
}

std::int64_t bytes_of(const NumberFormat& format, std::int64_t rows, std::int64_t length) {
  const auto bytes = [](std::int64_t bits) { return ceil_divide(bits, 8); };
  const std::int64_t codes = rows * bytes(length * code_bits(format.element));
  const std::int64_t scale = bytes(scale_bits(format));
  const auto zero_points = [&](std::int64_t count) { return bytes(count * zero_point_bits(format)); };
  switch (format.granularity) {
    case Granularity::none:
      return codes;
    case Granularity::tensor:
      return codes + scale + zero_points(1);
    case Granularity::row:
      return codes + rows * (scale + zero_points(1));
    case Granularity::tile:
      return codes + ceil_divide(rows, format.group) * ceil_divide(length, format.group) * scale;
    case Granularity::group:
      break;
  }
  const std::int64_t groups = ceil_divide(length, format.group);
  return codes + rows * (groups * scale + zero_points(groups)) + (format.rule == Rule::two_level ? 4 : 0);
}

bool fits_bfloat16(const NumberFormat& format) {
  if (format.granularity == Granularity::none) return fits_bfloat16(format.element);
  return scale_kind(format) == ScaleKind::power_of_two || format.rule == Rule::one_level;
}

}  // namespace pi0::formats
