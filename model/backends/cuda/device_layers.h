// Norms, rotary embedding and GELU as device kernels. They round to bfloat16 where the reference does; they differ in
// the order of a norm's sums and the last bits of GELU. See device_block.h for how they are written, and
// device_layer_kernels.h for their arguments.
#pragma once

#include <cmath>

#include "model/backends/cuda/device_block.h"
#include "model/backends/cuda/device_layer_kernels.h"
#include "model/backends/layer_values.h"

namespace pi0::model {
namespace {

// Eight adjacent values, as float32.
struct Values {
  float at[8];
};

template <class Dtype>
constexpr Values load_values(const void* values, std::int64_t first) {
  Values result;
  if constexpr (std::is_same_v<Dtype, AsBfloat16>) {
    const Eight eight = load_eight(static_cast<const std::uint16_t*>(values) + first);
#pragma unroll
    for (int i = 0; i < 8; ++i) result.at[i] = formats::float_of_bfloat16(half_of(eight, i));
  } else {
    struct alignas(16) Four {
      float at[4];
    };
    const auto* const fours =
        static_cast<const Four*>(static_cast<const void*>(static_cast<const float*>(values) + first));
    const Four low = fours[0], high = fours[1];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      result.at[i] = low.at[i];
      result.at[i + 4] = high.at[i];
    }
  }
  return result;
}

template <class Dtype>
constexpr void store_values(void* values, std::int64_t first, const Values& from) {
  if constexpr (std::is_same_v<Dtype, AsBfloat16>) {
    Eight eight;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      eight.pairs[i] = std::uint32_t{formats::bfloat16_of(from.at[2 * i])} |
                       std::uint32_t{formats::bfloat16_of(from.at[2 * i + 1])} << 16;
    }
    *static_cast<Eight*>(static_cast<void*>(static_cast<std::uint16_t*>(values) + first)) = eight;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) static_cast<float*>(values)[first + i] = from.at[i];
  }
}

constexpr float reciprocal_root(float value) {
#ifdef __CUDA_ARCH__
  return 1.0F / sqrtf(value);
#else
  return 1.0F / std::sqrt(value);
#endif
}

// One row, by one block. A thread takes eight adjacent values at a time, at most `turns` times.
template <class Dtype, int turns, class Block>
constexpr void norm_row(Block& block, const NormCall& call, int row) {
  const std::int64_t begin = std::int64_t{row} * call.width;
  const int sample = row / call.rows_per_sample;
  const auto width = static_cast<float>(call.width);
  const auto parameters = [](const void* values, bool in_bfloat16, std::int64_t first) {
    return in_bfloat16 ? load_values<AsBfloat16>(values, first) : load_values<AsFloat>(values, first);
  };
  const auto scaling = [&](const void* values, int first) {
    return parameters(values, call.parameters_in_bfloat16, sample * call.sample_stride + first);
  };
  struct Mine {
    Values values[turns], scale[turns], shift[turns];
  };
  typename Block::template Local<Mine> mine;
  typename Block::template Local<float> part;
  const auto each_value = [&](int thread, const auto& work) {
#pragma unroll
    for (int turn = 0; turn < turns; ++turn) {
      const int first = (turn * Block::threads + thread) * 8;
      if (first < call.width)
        work(mine[thread].values[turn], first, mine[thread].scale[turn], mine[thread].shift[turn]);
    }
  };
  block.each([&](int thread) {
    each_value(thread, [&](Values& values, int first, Values& scale, Values& shift) {
      values = load_values<Dtype>(call.x, begin + first);
      scale = scaling(call.scale, first);  // read now, so that it is there when it is needed
      if (call.shift != nullptr) shift = scaling(call.shift, first);
      if (call.update == nullptr) return;
      const Values update = load_values<Dtype>(call.update, begin + first);
      Values gate;
      if (call.gate != nullptr) gate = parameters(call.gate, call.gate_in_bfloat16, sample * call.gate_stride + first);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float by = update.at[i];
        if (call.gate != nullptr) by = Dtype::rounded(by * Dtype::rounded(gate.at[i]));
        values.at[i] = Dtype::rounded(values.at[i] + by);
      }
      store_values<Dtype>(call.sum, begin + first, values);
    });
    float total = 0;
    each_value(thread, [&](const Values& values, int, const Values&, const Values&) {
#pragma unroll
      for (int i = 0; i < 8; ++i) total += call.kind == NormKind::layer ? values.at[i] : values.at[i] * values.at[i];
    });
    part[thread] = total;
  });
  float mean = 0, variance = block.sum(part) / width;
  if (call.kind == NormKind::layer) {
    mean = variance;
    block.each([&](int thread) {
      float total = 0;
      each_value(thread, [&](const Values& values, int, const Values&, const Values&) {
#pragma unroll
        for (int i = 0; i < 8; ++i) total += (values.at[i] - mean) * (values.at[i] - mean);
      });
      part[thread] = total;
    });
    variance = block.sum(part) / width;
  }
  const float factor = reciprocal_root(variance + call.epsilon);
  const float one = call.kind == NormKind::layer ? 0.0F : 1.0F;  // the factor of an RMS norm is 1 + scale
  block.each([&](int thread) {
    each_value(thread, [&](Values& values, int first, const Values& scale, const Values& shift) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        values.at[i] = (values.at[i] - mean) * factor * (one + scale.at[i]);
        if (call.shift != nullptr) values.at[i] += shift.at[i];
      }
      store_values<Dtype>(call.out, begin + first, values);
    });
  });
}

// Every `step`-th pair of values from `first` on.
template <class Dtype>
constexpr void rotate_pairs(const RotateCall& call, int first, int step) {
  const int half = call.size / 2;
  const int pairs = call.samples * call.heads * call.tokens * half;
  for (int i = first; i < pairs; i += step) {
    const int place = i % half, row = i / half;  // rows in the order of the result
    const int token = row % call.tokens, head = row / call.tokens % call.heads;
    const int sample = row / call.tokens / call.heads;
    const std::int64_t in = sample * call.sample_stride + head * call.head_stride + token * call.token_stride + place;
    const std::int64_t angle = std::int64_t{sample * call.tokens + token} * call.size + place;
    const float low = Dtype::load(call.in, in), high = Dtype::load(call.in, in + half);
    const auto rotated = [&](float value, float other, std::int64_t at) {
      return Dtype::rounded(value * Dtype::load(call.cos, at)) + Dtype::rounded(other * Dtype::load(call.sin, at));
    };
    const std::int64_t out = std::int64_t{row} * call.size + place;
    Dtype::store(call.out, out, rotated(low, -high, angle));
    Dtype::store(call.out, out + half, rotated(high, low, angle + half));
  }
}

template <class Dtype>
constexpr float gated(float gate, float up) {
  return Dtype::rounded(gelu_of(gate)) * up;
}

// Every `step`-th group of eight values from group `first` on.
template <class Dtype>
constexpr void gelu_values(const GeluCall& call, int first, int step) {
  const int row_eights = call.columns / 8;
  for (int i = first; i < call.rows * row_eights; i += step) {
    const std::int64_t place = std::int64_t{i / row_eights} * call.row_stride + i % row_eights * 8;
    Values values = load_values<Dtype>(call.x, place);
    Values factor;
    if (call.factor != nullptr) factor = load_values<Dtype>(call.factor, place);
#pragma unroll
    for (int at = 0; at < 8; ++at) {
      values.at[at] = call.factor == nullptr ? gelu_of(values.at[at]) : gated<Dtype>(values.at[at], factor.at[at]);
    }
    store_values<Dtype>(call.out, std::int64_t{i} * 8, values);
  }
}

}  // namespace
}  // namespace pi0::model
