#include "model/backends/cpu/coded_panels.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "quant/formats/rounding_value.h"

namespace pi0::model {
namespace {

using at::Tensor;
using formats::ScaleKind;

constexpr std::int64_t coded_values_per_thread = 1 << 15;

bool two_to_a_byte(const NumberFormat& format) { return code_bits(format.element) <= 4; }

CodeTable table_of(const NumberFormat& format) {
  CodeTable table{};
  table.two_to_a_byte = two_to_a_byte(format);
  const int bits = code_bits(format.element);
  const std::int64_t count = std::int64_t{1} << bits;
  // The elements of a row with each code once.
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(count)), packed(static_cast<std::size_t>(count));
  std::iota(codes.begin(), codes.end(), std::uint8_t{0});
  best_scaled_kernels().pack(codes.data(), count, bits, packed.data());
  const NumberFormat elements{format.element, formats::Granularity::row};
  const float scale = 1;
  std::uint16_t halves[256] = {};
  best_scaled_kernels().decode_elements({packed.data(), &scale, nullptr}, elements, 0, {halves, 1, count, count});
  for (std::int64_t code = 0; code < count; ++code) {
    table.low[code] = static_cast<std::uint8_t>(halves[code]);
    table.high[code] = static_cast<std::uint8_t>(halves[code] >> 8);
    table.values[code] = formats::float_of_bfloat16(halves[code]);
  }
  return table;
}

// One panel's codes; padding has code 0, whose element is 0.
void fill_coded_panel(const CodedWeight& weight, std::int64_t panel, std::uint8_t* to) {
  const std::int64_t pairs = divided_up(weight.in, 2), row_bytes = weight.codes.size(1);
  const bool together = two_to_a_byte(weight.format);
  std::fill_n(to, pairs * panel_width * (together ? 1 : 2), std::uint8_t{0});
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(2 * pairs));
  const std::int64_t rows = std::min(panel_width, weight.out - panel * panel_width);
  for (std::int64_t row = 0; row < rows; ++row) {
    best_scaled_kernels().unpack(weight.codes.const_data_ptr<std::uint8_t>() + (panel * panel_width + row) * row_bytes,
                                 weight.in, code_bits(weight.format.element), codes.data());
    const std::uint8_t* pair = codes.data();
    for (std::int64_t i = 0; i < pairs; ++i, pair += 2) {
      const std::int64_t at = i * panel_width + row;
      if (together) {
        to[at] = static_cast<std::uint8_t>(pair[0] | pair[1] << 4);
      } else {
        to[2 * at] = pair[0];
        to[2 * at + 1] = pair[1];
      }
    }
  }
}

// [scale rows, groups] as [panels, groups, 32].
Tensor scales_by_panel(const CodedWeight& weight, const Tensor& values) {
  if (!values.defined()) return {};
  const std::int64_t panels = divided_up(weight.out, panel_width), groups = values.size(1);
  const std::int64_t rows_per_scale = layout_of(weight.format, weight.in).rows_per_scale;
  Tensor result = at::zeros({panels, groups, panel_width}, at::kFloat);
  auto* const to = result.mutable_data_ptr<float>();
  const auto* const from = values.const_data_ptr<float>();
  for (std::int64_t row = 0; row < weight.out; ++row) {
    for (std::int64_t group = 0; group < groups; ++group) {
      to[(row / panel_width * groups + group) * panel_width + row % panel_width] =
          from[row / rows_per_scale * groups + group];
    }
  }
  return result;
}

// Two-level scales without the tensor's, exactly: they are float8_e4m3 values.
Tensor without_tensor_scale(const Tensor& scales, float tensor_scale) {
  return round_to(scales / tensor_scale, Format::float8_e4m3).values;
}

// One sample's rows as elements that are exact in bfloat16, and what is left of their scales.
class SampleElements {
 public:
  SampleElements(const NumberFormat& format, const formats::Rows<const float>& values,
                 const std::optional<formats::Range>& given)
      : format_(format),
        values_(values),
        range_(given ? *given : range_of(best_scaled_kernels(), values, format)),
        tensor_scale_(tensor_scale_of(format, range_)),
        layout_(layout_of(format, values.length)),
        codes_(at::empty({values.rows, layout_.row_bytes}, at::kByte)),
        scales_(at::empty({layout_.scale_rows(values.rows), layout_.scales_per_row}, at::kFloat)),
        zero_points_(at::empty_like(scales_)) {}

  void encode(std::int64_t first, std::int64_t rows) {
    best_scaled_kernels().encode({values_.values + first * values_.stride, rows, values_.length, values_.stride},
                                 format_, range_, first,
                                 {codes_.mutable_data_ptr<std::uint8_t>(), scales_.mutable_data_ptr<float>(),
                                  zero_points_.mutable_data_ptr<float>()});
  }

  // Writes the elements of an encoded row, and the scales that its sums lack: one for each group of ScaleKind::group.
  void write(std::int64_t row, std::uint16_t* elements, float* left) const {
    const formats::CodesFrom codes{codes_.const_data_ptr<std::uint8_t>(), scales_.const_data_ptr<float>(),
                                   zero_points_.const_data_ptr<float>()};
    best_scaled_kernels().decode_elements(codes, format_, row, {elements, 1, values_.length, values_.length});
    const float* const scales = codes.scales + row / layout_.rows_per_scale * layout_.scales_per_row;
    if (scale_kind(format_) != ScaleKind::float8_group) {
      std::copy_n(scales, layout_.scales_per_row, left);
      return;
    }
    *left = tensor_scale_;
    for (std::int64_t group = 0; group < layout_.scales_per_row; ++group) {
      const float inner = formats::round_one<Format::float8_e4m3>(scales[group] / tensor_scale_);
      const std::int64_t first = group * format_.group, end = std::min(first + format_.group, values_.length);
      for (std::int64_t i = first; i < end; ++i) {
        elements[i] = formats::bfloat16_of(formats::float_of_bfloat16(elements[i]) * inner);
      }
    }
  }

 private:
  const NumberFormat format_;
  const formats::Rows<const float> values_;
  const formats::Range range_;
  const float tensor_scale_;
  const formats::CodeLayout layout_;
  Tensor codes_, scales_, zero_points_;
};

// Whether lanes hold whole values, so that no scale is left for the sums.
bool holds_values(const NumberFormat& format, Lane lane) {
  const ScaleKind kind = scale_kind(format);
  return lane == Lane::float32 || kind == ScaleKind::none || kind == ScaleKind::power_of_two ||
         format.rule == formats::Rule::one_level;
}

}  // namespace

bool fits_pairs(const NumberFormat& format) {
  const auto plain = plain_cast(format);
  return !plain || fits_bfloat16(*plain);
}

PackedWeight pack_coded(const CodedWeight& weight) {
  const std::int64_t panels = divided_up(weight.out, panel_width), pairs = divided_up(weight.in, 2);
  std::vector<std::int64_t> shape = {panels, pairs, panel_width};
  if (!two_to_a_byte(weight.format)) shape.push_back(2);
  PackedWeight packed{empty_panels(shape, at::kByte), weight.out, weight.in};
  auto* const to = packed.panels.mutable_data_ptr<std::uint8_t>();
  const std::int64_t panel_bytes = packed.panels.numel() / panels;
  at::parallel_for(0, panels, divided_up(coded_values_per_thread, panel_bytes),
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t panel = begin; panel < end; ++panel)
                       fill_coded_panel(weight, panel, to + panel * panel_bytes);
                   });
  auto coded = std::make_shared<CodedScales>();
  coded->format = weight.format;
  coded->table = table_of(weight.format);
  coded->scales = scales_by_panel(weight, weight.scales);
  coded->zero_points = scales_by_panel(weight, weight.zero_points);
  coded->group = weight.format.group > 0 ? weight.format.group : weight.in;
  if (weight.format.rule == formats::Rule::two_level) {
    coded->tensor_scale = weight.tensor_scale;
    coded->scales = without_tensor_scale(coded->scales, weight.tensor_scale);
  }
  packed.coded = std::move(coded);
  return packed;
}

PackedInput pack_scaled_input(const GemmKernels& kernels, const Tensor& x, Lane lane, const NumberFormat& named,
                              const std::optional<formats::Range>& given) {
  const NumberFormat format = for_activations(named);
  if (holds_values(format, lane)) {
    return pack_input(kernels, round_activations(x.to(at::kFloat), format, given).values, lane, {});
  }
  const Tensor values = x.to(at::kFloat).contiguous();
  const std::int64_t in = x.size(-1), samples = values.dim() > 1 ? values.size(0) : 1;
  const std::int64_t rows = values.numel() / in / samples;  // of a sample
  const bool is_grouped = scale_kind(format) == ScaleKind::group;
  const std::int64_t groups = is_grouped ? divided_up(in, format.group) : 1;
  PackedInput packed = empty_input(lane, samples * rows, in);
  packed.scales = at::empty({samples * rows, groups}, at::kFloat);
  packed.scale_group = is_grouped ? format.group : in;
  const std::int64_t stride = packed.lanes.size(1);
  for (std::int64_t sample = 0; sample < samples; ++sample) {
    const std::int64_t first = sample * rows;
    SampleElements elements(format, {values.const_data_ptr<float>() + first * in, rows, in, in}, given);
    auto* const lanes = static_cast<std::uint32_t*>(packed.lanes.mutable_data_ptr()) + first * stride;
    auto* const scales = packed.scales.mutable_data_ptr<float>() + first * groups;
    at::parallel_for(0, rows, divided_up(coded_values_per_thread, in), [&](std::int64_t begin, std::int64_t end) {
      elements.encode(begin, end - begin);
      for (std::int64_t row = begin; row < end; ++row) {
        std::uint32_t* const own = lanes + row * stride;
        std::fill(own + in / 2, own + stride, 0U);
        elements.write(row, reinterpret_cast<std::uint16_t*>(own), scales + row * groups);
      }
    });
  }
  return packed;
}

}  // namespace pi0::model
