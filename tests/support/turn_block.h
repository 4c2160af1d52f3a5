// A block of a device's threads that take turns, as model/backends/cuda/device_block.h asks for one.
#pragma once

#include <c10/util/Half.h>

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "model/backends/cuda/device_block.h"

namespace pi0::test {

template <int thread_count>
class TurnBlock {
 public:
  static constexpr int threads = thread_count, warp_size = model::warp_size;
  template <class T>
  struct Local {
    std::vector<T> values = std::vector<T>(thread_count);
    T& operator[](int thread) { return values[static_cast<std::size_t>(thread)]; }
  };

  template <class Work>
  void each(const Work& work) {
    for (int thread = 0; thread < threads; ++thread) work(thread);
  }
  void barrier() {}
  template <class Work>
  void issue_reads(const Work& work) {
    for (int thread = 0; thread < threads; ++thread) work(thread, 0.0F);
  }

  float sum(Local<float>& part) {
    float total = 0;
    for (const float value : part.values) total += value;
    return total;
  }
  template <class T, int count>
  model::Several<T, count> sum(Local<model::Several<T, count>>& part) {
    model::Several<T, count> total{};
    for (const model::Several<T, count>& several : part.values) {
      for (int i = 0; i < count; ++i) total.at[i] += several.at[i];
    }
    return total;
  }
  bool is_last(std::uint32_t* counter, unsigned count) {
    if (++*counter < count) return false;
    *counter = 0;
    return true;
  }
  void warp_sum(Local<float>& part) {
    over_warps(part, [](float a, float b) { return a + b; });
  }
  void warp_max(Local<float>& part) {
    over_warps(part, [](float a, float b) { return a > b ? a : b; });
  }

  // PTX's mma.m16n8k16 as its documentation lays it out over the lanes.
  template <model::Halves halves = model::Halves::bfloat16, class Mine, class Operands>
  void multiply(Local<Mine>& mine, const Operands& operands) {
    for (int warp = 0; warp < threads / warp_size; ++warp) {
      float a[16][16], b[16][8];
      std::array<model::TileProduct, warp_size> lanes;
      for (int lane = 0; lane < warp_size; ++lane) {
        const model::TileProduct& own = lanes[static_cast<std::size_t>(lane)] = operands(mine[warp * warp_size + lane]);
        const int group = lane >> 2, in_group = lane & 3;
        for (int i = 0; i < 8; ++i) {
          const int row = i % 4 < 2 ? group : group + 8, term = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
          a[row][term] = value_of<halves>(own.a[i / 2], i % 2);
        }
        for (int i = 0; i < 4; ++i)
          b[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group] = value_of<halves>(own.b[i / 2], i % 2);
      }
      float sums[16][8];
      const auto each_sum = [&](const auto& work) {
        for (int lane = 0; lane < warp_size; ++lane) {
          for (int i = 0; i < 4; ++i) {
            const int row = (lane >> 2) + (i < 2 ? 0 : 8), column = (lane & 3) * 2 + (i & 1);
            work(sums[row][column], lanes[static_cast<std::size_t>(lane)].sums[i]);
          }
        }
      };
      each_sum([](float& sum, float of_lane) { sum = of_lane; });
      for (int row = 0; row < 16; ++row) {
        for (int term = 0; term < 16; ++term) {
          for (int column = 0; column < 8; ++column) sums[row][column] += a[row][term] * b[term][column];
        }
      }
      each_sum([](float sum, float& of_lane) { of_lane = sum; });
    }
  }

 private:
  template <model::Halves halves>
  static float value_of(std::uint32_t pair, int i) {
    const auto half = static_cast<std::uint16_t>(pair >> (16 * i));
    if (halves == model::Halves::bfloat16) return std::bit_cast<float>(std::uint32_t{half} << 16);
    return c10::detail::fp16_ieee_to_fp32_value(half);
  }

  template <class Join>
  static void over_warps(Local<float>& part, const Join& join) {
    for (int first = 0; first < threads; first += warp_size) {
      float joined = part[first];
      for (int lane = 1; lane < warp_size; ++lane) joined = join(joined, part[first + lane]);
      for (int lane = 0; lane < warp_size; ++lane) part[first + lane] = joined;
    }
  }
};

}  // namespace pi0::test
