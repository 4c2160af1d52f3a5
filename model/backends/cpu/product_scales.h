// The scales of one product's operands, as the loops of gemm.cpp apply them (coded_panels.h says where).
#pragma once

#include <cstdint>

#include "model/backends/cpu/coded_panels.h"

namespace pi0::model {

// Some pairs of inputs.
struct Stretch {
  std::int64_t first_pair, pairs;

  std::int64_t end() const { return first_pair + pairs; }
};

class ProductScales {
 public:
  explicit ProductScales(const Product& product);

  bool is_coded() const { return coded_ != nullptr; }  // the weight is of a scaled format

  bool left_for_sums() const { return is_left_; }            // sums are to be multiplied by of_sums()
  std::int64_t group_pairs() const { return group_pairs_; }  // that are summed by themselves for it; 0: all

  // What sums over inputs from `input` on, for rows from `row` on, are multiplied by.
  SumScales of_sums(std::int64_t panel, std::int64_t row, std::int64_t input, bool go_on) const;

  // A stretch of a panel's codes to lanes.
  void widen(const GemmKernels& kernels, const void* codes, std::int64_t panel, Stretch stretch,
             std::uint32_t* lanes) const;

 private:
  // [32] of a group of a panel.
  const float* of_panel(const at::Tensor& values, std::int64_t panel, std::int64_t group) const;

  const PackedInput& x_;
  const CodedScales* coded_;
  bool columns_left_;  // the weight's scales, or one part of them, are not in the lanes
  bool is_left_;
  bool scales_lanes_;
  std::int64_t group_pairs_ = 0;
  float tensor_scale_[panel_width];
};

}  // namespace pi0::model
