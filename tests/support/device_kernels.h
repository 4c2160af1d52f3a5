// A device's kernels with its threads one after the other.
#pragma once

#include "quant/kernels/device_loops.h"

namespace pi0::test {

inline void round_in_turn(const quant::RoundCall& call, void*) {
  quant::with_constants(call.format, call.in_storage, call.out_storage, [&](auto format, auto in, auto out) {
    constexpr std::int64_t threads = 7;
    for (std::int64_t thread = 0; thread < threads; ++thread) {
      if (quant::round_values<decltype(format)::value, decltype(in)::value, decltype(out)::value>(call, thread,
                                                                                                  threads)) {
        *call.overflowed = 1;
      }
    }
  });
}

inline void finish_in_turn(const quant::ResultCall& call, void*) {
  const std::int64_t parts = quant::partial_count(call.values);
  for (std::int64_t sample = 0; sample < call.samples; ++sample) {
    for (std::int64_t part = 0; part < parts; ++part) {
      quant::ErrorSums errors;
      quant::with_constants(call.format, call.in_storage, call.out_storage, [&](auto format, auto in, auto out) {
        if (quant::finish_values<decltype(format)::value, decltype(in)::value, decltype(out)::value>(
                call, sample, part, parts, errors)) {
          *call.overflowed = 1;
        }
      });
      if (call.exact_sums != nullptr) call.partial[sample * parts + part] = errors;
    }
    if (call.exact_sums == nullptr) continue;
    auto* const record = reinterpret_cast<char*>(call.errors) + sample * call.errors_stride;
    reinterpret_cast<quant::ErrorStats*>(record)->add(quant::call_error(call, sample));
  }
}

inline constexpr quant::DeviceKernels kernels_in_turn = {round_in_turn, finish_in_turn};

}  // namespace pi0::test
