#include "model/backends/cpu/product_scales.h"

#include <algorithm>
#include <array>

namespace pi0::model {
namespace {

using formats::ScaleKind;

constexpr std::array<float, panel_width> ones = [] {
  std::array<float, panel_width> values{};
  values.fill(1);
  return values;
}();

bool stays_out_of_pairs(ScaleKind kind) { return kind == ScaleKind::row || kind == ScaleKind::group; }

}  // namespace

ProductScales::ProductScales(const Product& product) : x_(product.x), coded_(product.weight.coded.get()) {
  const bool is_pairs = x_.lane == Lane::bfloat16_pair;
  const ScaleKind kind = coded_ != nullptr ? scale_kind(coded_->format) : ScaleKind::none;
  std::fill_n(tensor_scale_, panel_width, coded_ != nullptr ? coded_->tensor_scale : 1.0F);
  columns_left_ = is_pairs && (stays_out_of_pairs(kind) || tensor_scale_[0] != 1);
  is_left_ = columns_left_ || x_.scales.defined();
  scales_lanes_ = coded_ != nullptr && coded_->scales.defined() &&
                  (!is_pairs || !stays_out_of_pairs(kind) || coded_->zero_points.defined());
  if (is_pairs && kind == ScaleKind::group) group_pairs_ = coded_->group / 2;
  if (x_.scales.defined() && x_.scale_group < x_.in) {
    group_pairs_ = group_pairs_ > 0 ? std::min(group_pairs_, x_.scale_group / 2) : x_.scale_group / 2;
  }
}

const float* ProductScales::of_panel(const at::Tensor& values, std::int64_t panel, std::int64_t group) const {
  return values.const_data_ptr<float>() + (panel * values.size(1) + group) * panel_width;
}

SumScales ProductScales::of_sums(std::int64_t panel, std::int64_t row, std::int64_t input, bool go_on) const {
  SumScales by{ones.data(), 0, ones.data(), go_on};
  if (x_.scales.defined()) {
    by.row_stride = x_.scales.size(1);
    by.rows = x_.scales.const_data_ptr<float>() + row * by.row_stride + input / x_.scale_group;
  }
  if (columns_left_) {
    const bool is_tensor = scale_kind(coded_->format) == ScaleKind::float8_group;
    by.columns = is_tensor ? tensor_scale_ : of_panel(coded_->scales, panel, input / coded_->group);
  }
  return by;
}

void ProductScales::widen(const GemmKernels& kernels, const void* codes, std::int64_t panel, Stretch stretch,
                          std::uint32_t* lanes) const {
  kernels.widen_elements(codes, coded_->table, x_.lane, stretch.pairs, lanes);
  if (!scales_lanes_) return;
  const bool is_pairs = x_.lane == Lane::bfloat16_pair;
  const bool only_zero_points = is_pairs && stays_out_of_pairs(scale_kind(coded_->format));
  const std::int64_t steps_per_pair = is_pairs ? 1 : 2, end = stretch.first_pair + stretch.pairs;
  for (std::int64_t pair = stretch.first_pair; pair < end;) {
    const std::int64_t group = 2 * pair / coded_->group;
    const std::int64_t next = std::min(end, divided_up((group + 1) * coded_->group, 2));
    const float* const scales = of_panel(coded_->scales, panel, group);
    std::array<float, panel_width> whole;  // with the tensor's scale
    for (std::size_t i = 0; i < panel_width; ++i) whole[i] = is_pairs ? scales[i] : scales[i] * coded_->tensor_scale;
    const float* const zero_points =
        coded_->zero_points.defined() ? of_panel(coded_->zero_points, panel, group) : nullptr;
    kernels.scale_elements(lanes + (pair - stretch.first_pair) * steps_per_pair * panel_width, x_.lane, next - pair,
                           {zero_points, only_zero_points ? ones.data() : whole.data()});
    pair = next;
  }
}

}  // namespace pi0::model
