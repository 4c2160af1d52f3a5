// Statistics of one linear's inputs in one denoise step, channel (input feature) by channel, over all rows that it saw.
//
// Shape letters: R rows, In channels, P percentiles.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

namespace pi0::quant {

class ChannelStatistics {
 public:
  explicit ChannelStatistics(std::int64_t channels);

  // Counts the rows of x [R, In], bfloat16 or float32 on the CPU, contiguous. Throws std::invalid_argument for another
  // dtype than that of the first call.
  void count(const at::Tensor& x);

  // Copies the values of x, as count() takes it, for percentiles(). They take value_bytes(rows of x) bytes.
  void keep(const at::Tensor& x);
  void drop_values() { kept_ = {}; }

  std::int64_t rows() const { return rows_; }  // that were counted
  std::int64_t value_bytes() const {           // of all of them
    return rows_ * channels_ * static_cast<std::int64_t>(c10::elementSize(dtype_));
  }
  bool is_finite() const;  // whether all values counted so far are

  at::Tensor absmax() const;       // [In] float32; exact
  at::Tensor mean_square() const;  // [In] float32; summed in float64, row by row

  // Of |x| over the values that were kept: [P, In] float32. What numpy.percentile(method="linear") gives for the values
  // in float64, rounded to float32. `wanted` are from 0 to 100. Needs at least one row and finite values.
  at::Tensor percentiles(std::span<const double> wanted) const;

 private:
  void check_dtype(const at::Tensor& x);

  std::int64_t channels_;
  std::int64_t rows_ = 0;
  at::ScalarType dtype_ = at::ScalarType::Undefined;
  std::vector<std::uint32_t> largest_;  // by channel: the bits of the largest magnitude in float32
  std::vector<double> squares_;         // by channel: their sum
  std::vector<at::Tensor> kept_;        // [R, In] each
};

}  // namespace pi0::quant
