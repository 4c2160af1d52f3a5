#include "quant/formats/error_stats.h"

#include <cmath>

namespace pi0::formats {
namespace {

std::optional<double> finite(double value) { return std::isfinite(value) ? std::optional(value) : std::nullopt; }

}  // namespace

// Chan, Golub and LeVeque's pairwise form of Welford's update.
void ErrorStats::merge(const ErrorStats& other) {
  if (other.count_ == 0) return;
  if (count_ == 0) {
    *this = other;
    return;
  }
  const auto n = static_cast<double>(count_), m = static_cast<double>(other.count_);
  const double difference = other.mean_mse_ - mean_mse_;
  mean_mse_ += difference * m / (n + m);
  squares_ += other.squares_ + difference * difference * n * m / (n + m);
  mean_power_ += (other.mean_power_ - mean_power_) * m / (n + m);
  count_ += other.count_;
  nonfinite_ += other.nonfinite_;
}

std::optional<double> ErrorStats::mse() const { return count_ == 0 ? std::nullopt : finite(mean_mse_); }

std::optional<double> ErrorStats::rmse() const { return count_ == 0 ? std::nullopt : finite(std::sqrt(mean_mse_)); }

std::optional<double> ErrorStats::mse_std() const {
  return count_ < 2 ? std::nullopt : finite(std::sqrt(squares_ / static_cast<double>(count_ - 1)));
}

std::optional<double> ErrorStats::reference_rms() const {
  return count_ == 0 ? std::nullopt : finite(std::sqrt(mean_power_));
}

std::optional<double> ErrorStats::rel_rmse() const {
  return count_ == 0 ? std::nullopt : finite(std::sqrt(mean_mse_ / mean_power_));
}

}  // namespace pi0::formats
