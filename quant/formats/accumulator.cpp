#include "quant/formats/accumulator.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <stdexcept>

#include "quant/formats/rounding_value.h"

namespace pi0::formats {
namespace {

struct NamedAccumulator {
  AccumulatorKind kind;
  std::string_view name;
  bool has_number;
};
constexpr std::array accumulators = {
    NamedAccumulator{AccumulatorKind::float32, "float32", false},
    NamedAccumulator{AccumulatorKind::bfloat16, "bfloat16", true},
    NamedAccumulator{AccumulatorKind::float16, "float16", true},
    NamedAccumulator{AccumulatorKind::ipt, "ipt", false},
    NamedAccumulator{AccumulatorKind::systolic, "systolic", false},
};

constexpr int most_between_roundings = 4096;

[[noreturn]] void refuse_accumulator(std::string_view name, const std::string& why) {
  throw std::invalid_argument("accumulator '" + std::string(name) + "': " + why);
}

int parse_every(std::string_view text) {
  int every = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), every);
  const bool is_number = error == std::errc() && end == text.data() + text.size() && text[0] != '0';
  return is_number && every <= most_between_roundings ? std::max(every, 0) : 0;
}

template <Format format>
float rounded_sum(const float* x, const float* weight, std::int64_t count, float first, int every) {
  float sum = first;
  for (std::int64_t k = 0; k < count; ++k) {
    sum = std::fma(x[k], weight[k], sum);
    if ((k + 1) % every == 0 || k + 1 == count) sum = round_one<format>(sum);
  }
  return sum;
}

// Encoded operands are multiples of 2^-9 up to 480. So sums are multiples of 2^-18, and neither subnormal nor, of fewer
// than 2^100 terms, too large for bfloat16: what the hardware does to such values cannot be seen here.

// Products are exact in float32. So is what decides how a sum is rounded: product and sum have 8 bits each, and a term
// too small to be exact beside the other is too small to reach the middle between two bfloat16 values.
float systolic_sum(const float* x, const float* weight, std::int64_t count, float first) {
  float sum = first;
  for (std::int64_t k = 0; k < count; ++k) {
    const float product = x[k] * weight[k];
    if (product != 0) sum = rounded_to_bfloat16(sum + product);
  }
  return sum;
}

constexpr std::int64_t tree_size = 32;
constexpr int tree_headroom = 7;   // bits above the largest term
constexpr int tree_fraction = 29;  // bits below the anchor

// Below every term's.
constexpr int exponent_of_zero = -64;
int exponent_of(float term) { return term == 0 ? exponent_of_zero : std::ilogb(term); }

// In units of 2^(anchor - tree_fraction), without what lies below.
std::int64_t aligned(float term, int anchor) {
  return static_cast<std::int64_t>(std::ldexp(static_cast<double>(term), tree_fraction - anchor));
}

float tree_sum(const float* x, const float* weight, std::int64_t count, float first) {
  float sum = first;
  for (std::int64_t begin = 0; begin < count; begin += tree_size) {
    const std::int64_t end = std::min(begin + tree_size, count);
    int largest = exponent_of(sum);
    for (std::int64_t k = begin; k < end; ++k) largest = std::max(largest, exponent_of(x[k] * weight[k]));
    const int anchor = largest + tree_headroom;
    std::int64_t total = aligned(sum, anchor);
    for (std::int64_t k = begin; k < end; ++k) total += aligned(x[k] * weight[k], anchor);
    sum = rounded_to_bfloat16(std::ldexp(static_cast<float>(total), anchor - tree_fraction));
  }
  return sum;
}

}  // namespace

Accumulator parse_accumulator(std::string_view name) {
  const std::size_t colon = std::min(name.find(':'), name.size());
  const std::string_view kind = name.substr(0, colon), number = name.substr(std::min(colon + 1, name.size()));
  for (const NamedAccumulator& known : accumulators) {
    if (known.name != kind) continue;
    if (!known.has_number) {
      if (colon < name.size()) refuse_accumulator(name, "nothing may follow " + std::string(kind));
      return {known.kind};
    }
    const int every = parse_every(number);
    if (every == 0) {
      refuse_accumulator(name, "needs the number of products from one rounding to the next, 1 to " +
                                   std::to_string(most_between_roundings) + ", as in " + std::string(kind) + ":32");
    }
    return {known.kind, every};
  }
  refuse_accumulator(name, "is unknown; known: float32, bfloat16:N, float16:N, ipt, systolic");
}

std::string name_of(const Accumulator& accumulator) {
  const NamedAccumulator& known = accumulators[static_cast<std::size_t>(accumulator.kind)];
  std::string name(known.name);
  if (known.has_number) name.append(":").append(std::to_string(accumulator.every));
  return name;
}

std::string file_name_of(const Accumulator& accumulator) {
  std::string name = name_of(accumulator);
  std::replace(name.begin(), name.end(), ':', '-');
  return name;
}

bool encodes_operands(const Accumulator& accumulator) {
  return accumulator.kind == AccumulatorKind::ipt || accumulator.kind == AccumulatorKind::systolic;
}

bool orders_attention(const Accumulator& accumulator) {
  return accumulator.is_ordered() && !encodes_operands(accumulator);
}

float encoded_operand(float value) {
  constexpr std::uint32_t smallest = bits_of(0x1p-6F), beyond = bits_of(496.0F), largest = bits_of(448.0F);
  constexpr int dropped = 23 - 3;
  const std::uint32_t sign = bits_of(value) & 0x80000000U;
  const std::uint32_t magnitude = bits_of(value) ^ sign;
  const std::uint32_t to_nearest = magnitude + ((1U << (dropped - 1)) - 1) + ((magnitude >> dropped) & 1U);
  std::uint32_t code = above(beyond, magnitude) ? to_nearest >> dropped << dropped : largest;
  code = above(smallest, magnitude) ? 0 : code | sign;
  return std::bit_cast<float>(code & ~nan_mask(magnitude));
}

void encode_operands(float* values, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) values[i] = encoded_operand(values[i]);
}

float ordered_sum(const Accumulator& accumulator, const float* x, const float* weight, std::int64_t count,
                  float first) {
  switch (accumulator.kind) {
    case AccumulatorKind::bfloat16:
      return rounded_sum<Format::bfloat16>(x, weight, count, first, accumulator.every);
    case AccumulatorKind::float16:
      return rounded_sum<Format::float16>(x, weight, count, first, accumulator.every);
    case AccumulatorKind::ipt:
      return tree_sum(x, weight, count, first);
    case AccumulatorKind::systolic:
      return systolic_sum(x, weight, count, first);
    case AccumulatorKind::float32:
      break;
  }
  throw std::invalid_argument("ordered_sum: the order of float32's sums is not defined");
}

}  // namespace pi0::formats
