// Running statistics of one site's error over calls: plain numbers without LibTorch and without locks. A GPU updates
// them too.
// Reference: pi0-quant stats_tracker.py LayerStats (Welford over the calls' mean squared errors).
#pragma once

#include <cstdint>
#include <optional>

namespace pi0::formats {

// The error of one call of a hooked matmul.
struct CallError {
  double mse = 0;              // mean over all elements of (reference - result)²
  double reference_power = 0;  // mean over all elements of reference²
  std::int64_t nonfinite = 0;  // elements that are not finite where the reference is
};

// The parts of that error, each against the product before it: of exact operands, of rounded ones, accumulated,
// rounded.
template <class Errors>
struct ByCause {
  Errors operands, accumulation, output;
};

class ErrorStats {
 public:
  constexpr void add(const CallError& call) {
    ++count_;
    const auto n = static_cast<double>(count_);
    const double before = call.mse - mean_mse_;
    mean_mse_ += before / n;
    squares_ += before * (call.mse - mean_mse_);
    mean_power_ += (call.reference_power - mean_power_) / n;
    nonfinite_ += call.nonfinite;
  }
  void merge(const ErrorStats& other);  // as if other's calls had come after these

  std::int64_t call_count() const { return count_; }
  std::int64_t nonfinite() const { return nonfinite_; }

  // None where there is no value: no call, for mse_std fewer than two, or not finite.
  std::optional<double> mse() const;
  std::optional<double> rmse() const;
  std::optional<double> mse_std() const;        // sample deviation over calls
  std::optional<double> reference_rms() const;  // over all calls: what rmse is to be compared with
  std::optional<double> rel_rmse() const;       // rmse / reference_rms; none when 0/0

 private:
  std::int64_t count_ = 0;
  double mean_mse_ = 0;
  double squares_ = 0;  // sum of squared deviations of mse from its mean
  double mean_power_ = 0;
  std::int64_t nonfinite_ = 0;
};

}  // namespace pi0::formats
