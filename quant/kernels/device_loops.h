// What one thread of a device does, written once for CUDA's compiler, which calls whatever is constexpr, and for
// the tests' C++.
#pragma once

#include <bit>
#include <cstdint>
#include <stdexcept>
#include <type_traits>

#include "quant/kernels/device_kernels.h"
#include "quant/kernels/rounding_value.h"

namespace pi0::quant {
namespace {

template <Storage storage>
constexpr float load(const void* values, std::int64_t i) {
  static_assert(storage == Storage::float32 || storage == Storage::bfloat16);
  if constexpr (storage == Storage::float32) {
    return static_cast<const float*>(values)[i];
  } else {
    const std::uint32_t half = static_cast<const std::uint16_t*>(values)[i];
    return std::bit_cast<float>(half << 16);
  }
}

// `value` is on the grid of `format`, which fits the storage, or is rounded to bfloat16 once more.
template <Storage storage, Format format>
constexpr void store(void* values, std::int64_t i, float value) {
  if constexpr (storage == Storage::float32) {
    static_cast<float*>(values)[i] = value;
  } else if constexpr (storage == Storage::bfloat16) {
    static_cast<std::uint16_t*>(values)[i] =
        static_cast<std::uint16_t>(code_of<Format::bfloat16>(round_one<Format::bfloat16>(value)));
  } else if constexpr (storage == Storage::float16) {
    static_cast<std::uint16_t*>(values)[i] = static_cast<std::uint16_t>(code_of<Format::float16>(value));
  } else {
    static_assert(format == Format::float8_e4m3 || format == Format::float8_e5m2);
    static_cast<std::uint8_t*>(values)[i] = static_cast<std::uint8_t>(code_of<format>(value));
  }
}

template <Format format>
constexpr bool is_beyond(float value) {
  if constexpr (format == Format::float32) {
    return false;
  } else {
    const std::uint32_t magnitude = bits_of(value) & 0x7FFFFFFFU;
    return magnitude >= bits_of(first_beyond(format)) && magnitude < infinity_bits;
  }
}

constexpr bool is_finite(float value) { return (bits_of(value) & infinity_bits) != infinity_bits; }

// Every `step`-th value from `first` on; whether one was beyond the format's largest.
template <Format format, Storage in, Storage out>
constexpr bool round_values(const RoundCall& call, std::int64_t first, std::int64_t step) {
  bool beyond = false;
  for (std::int64_t i = first; i < call.count; i += step) {
    const float value = load<in>(call.in, i);
    beyond |= is_beyond<format>(value);
    store<out, format>(call.out, i, rounded_to<format>(value));
  }
  return beyond;
}

// The same for a sample's sums, adding to `errors` where something is compared.
template <Format format, Storage in, Storage out>
constexpr bool finish_values(const ResultCall& call, std::int64_t sample, std::int64_t first,
                             std::int64_t step, ErrorSums& errors) {
  bool beyond = false;
  for (std::int64_t i = first; i < call.values; i += step) {
    const std::int64_t place = sample * call.values + i;
    float value = load<in>(call.sums, place);
    if (call.bias != nullptr) value += call.bias[i % call.columns];
    float exact = 0;
    if (call.exact_sums != nullptr) {
      exact = load<in>(call.exact_sums, place);
      if (call.exact_bias != nullptr) exact += call.exact_bias[i % call.columns];
    }
    beyond |= is_beyond<format>(value);
    float result = rounded_to<format>(value);
    store<out, format>(call.out, place, result);
    if (call.exact_sums == nullptr) continue;
    if constexpr (out == Storage::float32 || out == Storage::bfloat16) {
      if (call.compare_stored) result = load<out>(call.out, place);
    }
    const double difference = exact - result;
    errors.squares += difference * difference;
    errors.power += static_cast<double>(exact) * exact;
    errors.nonfinite += is_finite(exact) && !is_finite(result) ? 1 : 0;
  }
  return beyond;
}

// One more call of a sample, from its parts in their order.
constexpr CallError call_error(const ResultCall& call, std::int64_t sample) {
  const std::int64_t parts = partial_count(call.values);
  ErrorSums total;
  for (std::int64_t part = 0; part < parts; ++part) {
    const ErrorSums& sums = call.partial[sample * parts + part];
    total.squares += sums.squares;
    total.power += sums.power;
    total.nonfinite += sums.nonfinite;
  }
  const auto elements = static_cast<double>(call.values);
  return {total.squares / elements, total.power / elements, total.nonfinite};
}

// Calls `call` with format and storages as constants of the compiler's. Throws std::logic_error where the format
// does not fit.
template <Storage storage>
using StorageConstant = std::integral_constant<Storage, storage>;

template <class Call>
void with_constants(Format format, Storage in, Storage out, const Call& call) {
  with_format(format, [&](auto known) {
    const auto with_in = [&](auto known_in) {
      switch (out) {
        case Storage::float32: return call(known, known_in, StorageConstant<Storage::float32>{});
        case Storage::bfloat16: return call(known, known_in, StorageConstant<Storage::bfloat16>{});
        case Storage::float16:
          if constexpr (known() == Format::float16) {
            return call(known, known_in, StorageConstant<Storage::float16>{});
          }
          break;
        case Storage::code8:
          if constexpr (known() == Format::float8_e4m3 || known() == Format::float8_e5m2) {
            return call(known, known_in, StorageConstant<Storage::code8>{});
          }
          break;
      }
      throw std::logic_error("device kernels: a format does not fit where it should be stored");
    };
    return in == Storage::float32 ? with_in(StorageConstant<Storage::float32>{})
                                  : with_in(StorageConstant<Storage::bfloat16>{});
  });
}

}  // namespace
}  // namespace pi0::quant
