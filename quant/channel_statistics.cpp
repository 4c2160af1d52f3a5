#include "quant/channel_statistics.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace pi0::quant {
namespace {

constexpr std::int64_t channels_at_once = 16;  // of a row: a cache line of float32
constexpr std::uint32_t infinity_bits = 0x7F800000;

// Magnitudes are handled as bits, which order finite values as numbers do and put what is not finite above them.
template <class Bits>
Bits magnitude_bits(Bits bits) {
  return bits & static_cast<Bits>(std::numeric_limits<Bits>::max() >> 1);
}

std::uint32_t float_bits(std::uint32_t bits) { return bits; }
std::uint32_t float_bits(std::uint16_t bits) { return std::uint32_t{bits} << 16; }  // of a bfloat16

template <class Bits>
const Bits* bits_of(const at::Tensor& x) {
  return static_cast<const Bits*>(x.const_data_ptr());
}

// Calls `work` with a zero of the integer type that holds the bits of `dtype`.
template <class Work>
void with_bits(at::ScalarType dtype, const Work& work) {
  dtype == at::kBFloat16 ? work(std::uint16_t{}) : work(std::uint32_t{});
}

struct Channels {
  std::int64_t begin, end, all;
};

template <class Bits>
void add_rows(const at::Tensor& x, Channels channels, std::uint32_t* largest, double* squares) {
  const Bits* row = bits_of<Bits>(x);
  for (std::int64_t i = 0; i < x.size(0); ++i, row += channels.all) {
    for (std::int64_t c = channels.begin; c < channels.end; ++c) {
      const std::uint32_t magnitude = float_bits(magnitude_bits(row[c]));
      const double value = std::bit_cast<float>(magnitude);
      largest[c] = std::max(largest[c], magnitude);
      squares[c] += value * value;
    }
  }
}

// `sorted_from`: before it, values are at most those behind it. Leaves this so for `position` as well.
template <class Bits>
double order_statistic(std::vector<Bits>& values, std::size_t sorted_from, std::size_t position) {
  const auto at = [&](std::size_t i) { return values.begin() + static_cast<std::ptrdiff_t>(i); };
  std::nth_element(at(sorted_from), at(position), values.end());
  return std::bit_cast<float>(float_bits(values[position]));
}

// numpy/lib/function_base.py _quantile, _lerp
template <class Bits>
float percentile_of(std::vector<Bits>& values, double percentile, std::size_t& sorted_from) {
  const auto last = static_cast<double>(values.size() - 1);
  const double place = last * (percentile / 100);
  const auto below = static_cast<std::size_t>(std::min(std::floor(place), last));
  const double low = order_statistic(values, sorted_from, below);
  sorted_from = below;
  if (below + 1 == values.size()) return static_cast<float>(low);
  const double high = order_statistic(values, below + 1, below + 1);
  const double weight = place - static_cast<double>(below);
  const double step = high - low;
  return static_cast<float>(weight >= 0.5 ? high - step * (1 - weight) : low + step * weight);
}

template <class Bits>
std::vector<std::vector<Bits>> columns_of(const std::vector<at::Tensor>& kept, Channels channels) {
  std::vector<std::vector<Bits>> columns(static_cast<std::size_t>(channels.end - channels.begin));
  for (const at::Tensor& x : kept) {
    const Bits* row = bits_of<Bits>(x);
    for (std::int64_t i = 0; i < x.size(0); ++i, row += channels.all) {
      const Bits* value = row + channels.begin;
      for (std::vector<Bits>& column : columns) column.push_back(magnitude_bits(*value++));
    }
  }
  return columns;
}

}  // namespace

ChannelStatistics::ChannelStatistics(std::int64_t channels)
    : channels_(channels), largest_(static_cast<std::size_t>(channels)), squares_(static_cast<std::size_t>(channels)) {}

void ChannelStatistics::check_dtype(const at::Tensor& x) {
  if (dtype_ == at::ScalarType::Undefined && (x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kFloat)) {
    dtype_ = x.scalar_type();
  }
  if (x.scalar_type() == dtype_) return;
  throw std::invalid_argument(
      c10::str("activations are ", x.scalar_type(), ", expected bfloat16 or float32, the same in all calls"));
}

void ChannelStatistics::count(const at::Tensor& x) {
  check_dtype(x);
  rows_ += x.size(0);
  with_bits(dtype_, [&](auto bits) {
    at::parallel_for(0, channels_, 256, [&](std::int64_t begin, std::int64_t end) {
      add_rows<decltype(bits)>(x, {begin, end, channels_}, largest_.data(), squares_.data());
    });
  });
}

void ChannelStatistics::keep(const at::Tensor& x) {
  check_dtype(x);
  kept_.push_back(x.clone());
}

bool ChannelStatistics::is_finite() const {
  return std::ranges::all_of(largest_, [](std::uint32_t bits) { return bits < infinity_bits; });
}

at::Tensor ChannelStatistics::absmax() const {
  at::Tensor result = at::empty({channels_}, at::kFloat);
  std::ranges::transform(largest_, result.mutable_data_ptr<float>(),
                         [](std::uint32_t bits) { return std::bit_cast<float>(bits); });
  return result;
}

at::Tensor ChannelStatistics::mean_square() const {
  at::Tensor result = at::empty({channels_}, at::kFloat);
  std::ranges::transform(squares_, result.mutable_data_ptr<float>(),
                         [&](double sum) { return static_cast<float>(sum / static_cast<double>(rows_)); });
  return result;
}

at::Tensor ChannelStatistics::percentiles(std::span<const double> wanted) const {
  std::vector<std::size_t> ascending(wanted.size());  // each sorts what the next one needs
  std::iota(ascending.begin(), ascending.end(), std::size_t{0});
  std::ranges::sort(ascending, {}, [&](std::size_t i) { return wanted[i]; });
  at::Tensor result = at::empty({static_cast<std::int64_t>(wanted.size()), channels_}, at::kFloat);
  float* const found = result.mutable_data_ptr<float>();
  const auto fill = [&](Channels channels, auto bits) {
    std::int64_t channel = channels.begin;
    for (auto& column : columns_of<decltype(bits)>(kept_, channels)) {
      std::size_t sorted_from = 0;
      for (const std::size_t i : ascending) {
        found[static_cast<std::int64_t>(i) * channels_ + channel] = percentile_of(column, wanted[i], sorted_from);
      }
      ++channel;
    }
  };
  with_bits(dtype_, [&](auto bits) {
    const std::int64_t blocks = (channels_ + channels_at_once - 1) / channels_at_once;
    at::parallel_for(0, blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t block = begin; block < end; ++block) {
        const std::int64_t first = block * channels_at_once;
        fill({first, std::min(first + channels_at_once, channels_), channels_}, bits);
      }
    });
  });
  return result;
}

}  // namespace pi0::quant
