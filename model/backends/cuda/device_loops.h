// Rounding and error sums as device kernels (see device_block.h): constexpr functions, which CUDA's kernels can call
// and tests can run on a CPU.
#pragma once

#include <bit>
#include <cstdint>
#include <stdexcept>
#include <type_traits>

#include "model/backends/cuda/device_block.h"
#include "model/backends/cuda/device_kernels.h"
#include "quant/formats/rounding_value.h"

namespace pi0::model {
namespace {

using formats::bits_of;
using formats::code_of;
using formats::CodeOf;
using formats::infinity_bits;
using formats::round_one;
using formats::rounded_to;

template <Format storage>
constexpr float load(const void* values, std::int64_t i) {
  static_assert(storage == Format::float32 || storage == Format::bfloat16);
  if constexpr (storage == Format::float32) {
    return static_cast<const float*>(values)[i];
  } else {
    return formats::float_of_bfloat16(static_cast<const std::uint16_t*>(values)[i]);
  }
}

// `value` is on the grid of `format`. If the storage is bfloat16 and cannot hold the format, rounds once more.
template <Format storage, Format format>
constexpr void store(void* values, std::int64_t i, float value) {
  if constexpr (storage == Format::float32) {
    static_cast<float*>(values)[i] = value;
  } else if constexpr (storage == Format::bfloat16) {
    static_cast<std::uint16_t*>(values)[i] = formats::bfloat16_of(value);
  } else {
    static_assert(storage == format);
    static_cast<CodeOf<format>*>(values)[i] = static_cast<CodeOf<format>>(code_of<format>(value));
  }
}

template <Format format>
constexpr bool is_beyond(float value) {
  if constexpr (format == Format::float32) {
    return false;
  } else {
    constexpr std::uint32_t beyond = bits_of(formats::first_beyond(format));
    const std::uint32_t magnitude = bits_of(value) & 0x7FFFFFFFU;
    return magnitude >= beyond && magnitude < infinity_bits;
  }
}

constexpr bool is_finite(float value) { return (bits_of(value) & infinity_bits) != infinity_bits; }

// Adjacent values that a thread reads or writes at once, aligned to their total size.
template <class Element, int count>
struct alignas(sizeof(Element) * count) Neighbours {
  Element at[count];
};

template <Format storage, int count>
constexpr void load_neighbours(const void* values, std::int64_t first, float (&result)[count]) {
  const auto loaded = *static_cast<const Neighbours<CodeOf<storage>, count>*>(
      static_cast<const void*>(static_cast<const CodeOf<storage>*>(values) + first));
  for (int i = 0; i < count; ++i) result[i] = load<storage>(loaded.at, i);
}

template <Format storage, Format format, int count>
constexpr void store_neighbours(void* values, std::int64_t first, const float (&from)[count]) {
  Neighbours<CodeOf<storage>, count> stored;
  for (int i = 0; i < count; ++i) store<storage, format>(stored.at, i, from[i]);
  *static_cast<Neighbours<CodeOf<storage>, count>*>(static_cast<void*>(static_cast<CodeOf<storage>*>(values) + first)) =
      stored;
}

// Rounds every `step`-th group of `count` values from group `first` on. Returns whether one exceeded the format's
// largest.
template <Format format, Format in, Format out, int count>
constexpr bool round_values(const RoundCall& call, std::int64_t first, std::int64_t step) {
  bool beyond = false;
  for (std::int64_t i = first * count; i < call.count; i += step * count) {
    float values[count];
    load_neighbours<in>(call.in, i, values);
    for (float& value : values) {
      beyond |= is_beyond<format>(value);
      value = rounded_to<format>(value);
    }
    store_neighbours<out, format>(call.out, i, values);
  }
  return beyond;
}

// A thread's error sums: squared differences, squared exact values, and how many results are not finite.
using PartSums = Several<double, 3>;

constexpr void set_flags(const RoundCall& call) {
  for (int i = 0; i < RoundCall::most_flags; ++i) {
    if (i < call.flag_count) *call.overflowed[i] = 1;
  }
}

// Adds the error of one value of a result.
constexpr void compare(PartSums& sums, float exact, float result) {
  const double difference = static_cast<double>(exact) - static_cast<double>(result);
  sums.at[0] += difference * difference;
  sums.at[1] += static_cast<double>(exact) * static_cast<double>(exact);
  sums.at[2] += is_finite(exact) && !is_finite(result) ? 1 : 0;
}

// Takes a block's sums as part `part` of `parts` of an observation. The last block of a record adds the record's calls
// to its errors. Calls and their parts are added in a fixed order, whichever block is last.
template <class Block>
constexpr void add_errors(Block& block, typename Block::template Local<PartSums>& mine, const ResultCall& call,
                          int observation, int part, int parts) {
  const int record = observation % call.records;
  const auto of_record = [&](auto* first) {
    char* const bytes = static_cast<char*>(static_cast<void*>(first)) + record * call.record_stride;
    return static_cast<decltype(first)>(static_cast<void*>(bytes));
  };
  ErrorStats* const errors = of_record(call.errors);
  auto* const partial = static_cast<PartSums*>(call.partial);  // [observations, parts]
  typename Block::template Local<ErrorStats> known;
  const bool is_alone = parts * call.calls == 1;
  if (is_alone) {  // read while the sums are computed
    block.each([&](int thread) {
      if (thread == 0) known[thread] = *errors;
    });
  }
  PartSums sums = block.sum(mine);
  if (!is_alone) {
    block.each([&](int thread) {
      if (thread == 0) partial[std::int64_t{observation} * parts + part] = sums;
    });
    if (!block.is_last(of_record(call.arrived), static_cast<unsigned>(parts * call.calls))) return;
    block.each([&](int thread) {
      if (thread == 0) known[thread] = *errors;
    });
  }
  for (int of_call = 0; of_call < call.calls; ++of_call) {
    if (!is_alone) {
      const PartSums* const own = partial + std::int64_t{of_call * call.records + record} * parts;
      block.each([&](int thread) {
        mine[thread] = {};
        for (int i = thread; i < parts; i += Block::threads) {
          for (int j = 0; j < 3; ++j) mine[thread].at[j] += static_cast<const volatile double&>(own[i].at[j]);
        }
      });
      sums = block.sum(mine);
    }
    block.each([&](int thread) {
      if (thread != 0) return;
      const auto elements = static_cast<double>(call.values);
      known[thread].add({sums.at[0] / elements, sums.at[1] / elements, static_cast<std::int64_t>(sums.at[2])});
    });
  }
  block.each([&](int thread) {
    if (thread == 0) *errors = known[thread];
  });
}

// Finishes part `part` of `parts` of an observation. Threads take `count` adjacent values at a time.
template <Format format, Format in, Format out, int count, class Block>
constexpr void finish_part(Block& block, const SumsCall& call, int observation, int part, int parts) {
  const ResultCall& result = call.result;
  typename Block::template Local<PartSums> errors;
  block.each([&](int thread) {
    errors[thread] = {};
    bool beyond = false;
    const int step = parts * Block::threads * count;
    for (int i = (part * Block::threads + thread) * count; i < result.values; i += step) {
      const std::int64_t place = std::int64_t{observation} * result.values + i;
      float values[count], exact[count] = {}, terms[count];
      load_neighbours<in>(call.sums, place, values);
      if (result.errors != nullptr) load_neighbours<in>(call.exact_sums, place, exact);
      const int column = i % result.columns;
      if (result.bias != nullptr) {
        load_neighbours<Format::float32>(result.bias, column, terms);
        for (int j = 0; j < count; ++j) values[j] += terms[j];
      }
      for (float& value : values) {
        beyond |= is_beyond<format>(value);
        value = rounded_to<format>(value);
      }
      store_neighbours<out, format>(result.out, place, values);
      if (result.errors == nullptr) continue;
      if (result.exact_bias != nullptr) {
        load_neighbours<Format::float32>(result.exact_bias, column, terms);
        for (int j = 0; j < count; ++j) exact[j] += terms[j];
      }
      for (int j = 0; j < count; ++j) {
        if (out == Format::bfloat16 && result.compare_stored) values[j] = round_one<Format::bfloat16>(values[j]);
        compare(errors[thread], exact[j], values[j]);
      }
    }
    if (beyond) *result.overflowed = 1;
  });
  if (result.errors != nullptr) add_errors(block, errors, result, observation, part, parts);
}

// Whether a call's threads can take eight adjacent values at once.
inline bool takes_eight(const RoundCall& call) { return call.count % 8 == 0; }
inline bool takes_eight(const SumsCall& call) { return call.result.columns % 8 == 0; }

// Calls `call` with format and storages as compile-time constants. Throws std::logic_error if `out` cannot hold the
// format.
template <class Call>
void with_constants(Format format, Format in, Format out, const Call& call) {
  using formats::FormatConstant;
  formats::with_format(format, [&](auto known) {
    const auto with_in = [&](auto known_in) {
      if (out == Format::float32) return call(known, known_in, FormatConstant<Format::float32>{});
      if (out == Format::bfloat16) return call(known, known_in, FormatConstant<Format::bfloat16>{});
      if constexpr (known() != Format::float32 && known() != Format::bfloat16) {
        if (out == known()) return call(known, known_in, known);
      }
      throw std::logic_error("device kernels: the output storage cannot hold the format");
    };
    return in == Format::float32 ? with_in(FormatConstant<Format::float32>{})
                                 : with_in(FormatConstant<Format::bfloat16>{});
  });
}

}  // namespace
}  // namespace pi0::model
