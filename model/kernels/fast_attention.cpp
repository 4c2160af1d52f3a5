#include "model/kernels/fast_attention.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "model/kernels/scratch.h"
#include "model/matmul_site.h"

namespace pi0::model {
namespace {

using at::Tensor;

constexpr std::int64_t rows_per_block = 48;

Tensor after_prefix(const Tensor& prefix, const Tensor& own) {
  return (prefix.defined() ? at::cat({prefix, own}, 2) : own).contiguous();
}

// A weight in the form that is multiplied: [panels][steps][32] lanes.
struct Lanes {
  Scratch<std::uint32_t> data;
  std::int64_t panels;
  std::int64_t steps;
  const std::uint32_t* panel(std::int64_t index) const { return data.get() + index * steps * panel_width; }
};

Lanes lanes_of(const GemmKernels& kernels, const Tensor& weight, Lane lane) {
  const PackedWeight packed = pack_weight(weight);
  const std::int64_t pairs = packed.panels.size(1), panels = packed.panel_count();
  Lanes lanes{nullptr, panels, lane == Lane::float32 ? 2 * pairs : pairs};
  lanes.data = make_scratch<std::uint32_t>(panels * lanes.steps * panel_width);
  const auto* codes = static_cast<const std::uint8_t*>(packed.panels.const_data_ptr());
  const std::int64_t panel_bytes = pairs * panel_width * 2 * packed.panels.element_size();
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    kernels.widen(codes + panel * panel_bytes, packed.code(), lane, pairs,
                  lanes.data.get() + panel * lanes.steps * panel_width);
  }
  return lanes;
}

// The key and value heads of one sample that a group of query heads shares.
struct Group {
  Lanes keys;    // [P, D]
  Lanes values;  // [D, P]
};

}  // namespace

Tensor fast_attention(const GemmKernels& kernels, const AttentionOperands& in) {
  const Tensor key = after_prefix(in.prefix_key, in.key);        // [B, G, P, D]
  const Tensor value = after_prefix(in.prefix_value, in.value);  // [B, G, P, D]
  const Tensor query = in.query.contiguous();
  const std::int64_t batch = query.size(0), heads = query.size(1), length = query.size(2);
  const std::int64_t size = query.size(3), groups = key.size(1), keys = key.size(2);
  const bool in_bfloat16 = query.scalar_type() == at::kBFloat16;
  const Lane lane = in_bfloat16 && kernels.has_pairs ? Lane::bfloat16_pair : Lane::float32;
  const std::int64_t lanes_per_step = lane == Lane::float32 ? 1 : 2;
  // Padded to whole panels, so that rows of it can be added panel by panel: [B, L, keys].
  const std::int64_t padded_keys = (keys + panel_width - 1) / panel_width * panel_width;
  Tensor mask;
  if (in.mask.defined()) {
    mask = at::zeros({batch, length, padded_keys}, at::kFloat);
    mask.narrow(2, 0, keys).copy_(in.mask.squeeze(1));
  }

  const PackedInput rows = pack_input(kernels, query, lane, {});
  std::vector<Group> shared;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (std::int64_t g = 0; g < groups; ++g) {
      shared.push_back({lanes_of(kernels, key[b][g], lane), lanes_of(kernels, value[b][g].t(), lane)});
    }
  }
  Tensor result = at::empty(query.sizes(), query.options());
  const std::int64_t group_rows = heads / groups * length;
  const std::int64_t blocks = (group_rows + rows_per_block - 1) / rows_per_block;
  const auto* x = static_cast<const std::uint32_t*>(rows.lanes.const_data_ptr());
  const std::int64_t x_stride = rows.lanes.size(1);
  const std::int64_t weight_stride = padded_keys / lanes_per_step + 16;  // lanes

  constexpr std::int64_t flop_per_thread = 1 << 21;
  const std::int64_t block_flop = 4 * rows_per_block * keys * size;
  const std::int64_t grain = (flop_per_thread + block_flop - 1) / block_flop;

  const auto attend = [&](std::int64_t group, std::int64_t first, std::int64_t count, float* scores,
                          std::uint32_t* weights, float* sums) {
    const Group& kv = shared[static_cast<std::size_t>(group)];
    const std::int64_t first_row = group * group_rows + first;
    for (std::int64_t panel = 0; panel < kv.keys.panels; ++panel) {
      kernels.multiply(lane, x + first_row * x_stride, x_stride, count, kv.keys.steps,
                       kv.keys.panel(panel), scores + panel * count * panel_width, false);
    }
    for (std::int64_t row = 0; row < count; ++row) {
      const float* terms = nullptr;
      if (mask.defined()) {
        terms = mask.const_data_ptr<float>() +
                (group / groups * length + (first + row) % length) * padded_keys;
      }
      float* const row_scores = scores + row * panel_width;
      kernels.soften(row_scores, count * panel_width, keys, terms, static_cast<float>(in.scale),
                     in_bfloat16);
      std::uint32_t* const row_weights = weights + row * weight_stride;
      for (std::int64_t panel = 0; panel < kv.keys.panels; ++panel) {
        const float* from = row_scores + panel * count * panel_width;
        std::uint32_t* const to = row_weights + panel * panel_width / lanes_per_step;
        if (lane == Lane::bfloat16_pair) {
          kernels.narrow_to_bfloat16(from, reinterpret_cast<std::uint16_t*>(to), panel_width);
        } else if (in_bfloat16) {
          std::uint16_t narrow[panel_width];
          kernels.narrow_to_bfloat16(from, narrow, panel_width);
          kernels.widen_bfloat16(narrow, reinterpret_cast<float*>(to), panel_width);
        } else {
          std::copy_n(from, panel_width, reinterpret_cast<float*>(to));
        }
      }
    }
    for (std::int64_t panel = 0; panel < kv.values.panels; ++panel) {
      kernels.multiply(lane, weights, weight_stride, count, kv.values.steps, kv.values.panel(panel),
                       sums, false);
      const std::int64_t columns = std::min(panel_width, size - panel * panel_width);
      for (std::int64_t row = 0; row < count; ++row) {
        const std::int64_t at = (first_row + row) * size + panel * panel_width;
        if (in_bfloat16) {
          kernels.narrow_to_bfloat16(sums + row * panel_width,
                                     static_cast<std::uint16_t*>(result.mutable_data_ptr()) + at, columns);
        } else {
          std::copy_n(sums + row * panel_width, columns, result.mutable_data_ptr<float>() + at);
        }
      }
    }
  };
  at::parallel_for(0, batch * groups * blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    const auto scores = make_scratch<float>(padded_keys * rows_per_block);
    const auto sums = make_scratch<float>(rows_per_block * panel_width);
    const auto weights = make_scratch<std::uint32_t>(weight_stride * rows_per_block);
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t first = task % blocks * rows_per_block;
      attend(task / blocks, first, std::min(rows_per_block, group_rows - first), scores.get(),
             weights.get(), sums.get());
    }
  });
  return result;
}

}  // namespace pi0::model
