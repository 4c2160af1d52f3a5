#include "model/backends/cpu/fast_attention.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "model/attention.h"
#include "model/backends/cpu/scratch.h"

namespace pi0::model {
namespace {

using at::Tensor;

constexpr std::int64_t rows_per_block = 48;

// Keys or values, widened for multiplication: [panels][steps][32] lanes. Codes that are lanes already are shared.
struct Lanes {
  at::Tensor shared;
  Scratch<std::uint32_t> widened;
  std::int64_t panels = 0;
  std::int64_t steps = 0;

  const std::uint32_t* panel(std::int64_t index) const {
    const auto* first = shared.defined() ? static_cast<const std::uint32_t*>(shared.const_data_ptr()) : widened.get();
    return first + index * steps * panel_width;
  }
};

// Keys and values [B, G, P, D] in the layout of the kernels; G is the number of KV heads.
struct LanesKv : PackedKv {
  struct Group {
    Lanes keys;    // of [P, D]
    Lanes values;  // of [D, P]
  };
  std::vector<Group> groups;  // B · G
  std::int64_t count = 0;     // P
};

Lanes lanes_of(const GemmKernels& kernels, const Tensor& weight, Lane lane) {
  const PackedWeight packed = pack_weight(weight);
  const std::int64_t pairs = packed.panels.size(1), panels = packed.panel_count();
  Lanes lanes{packed.panels, {}, panels, lane == Lane::float32 ? 2 * pairs : pairs};
  if (lane == Lane::bfloat16_pair && packed.format() == Format::bfloat16) return lanes;
  lanes.widened = make_scratch<std::uint32_t>(panels * lanes.steps * panel_width);
  const auto* codes = static_cast<const std::uint8_t*>(packed.panels.const_data_ptr());
  const std::int64_t panel_bytes = pairs * panel_width * 2 * packed.panels.element_size();
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    kernels.widen(codes + panel * panel_bytes, packed.format(), lane, pairs,
                  lanes.widened.get() + panel * lanes.steps * panel_width);
  }
  lanes.shared.reset();
  return lanes;
}

LanesKv pack_kv(const GemmKernels& kernels, Lane lane, const Tensor& key, const Tensor& value) {
  LanesKv packed;
  packed.count = key.size(2);
  for (std::int64_t b = 0; b < key.size(0); ++b) {
    for (std::int64_t g = 0; g < key.size(1); ++g) {
      packed.groups.push_back({lanes_of(kernels, key[b][g], lane), lanes_of(kernels, value[b][g].t(), lane)});
    }
  }
  return packed;
}

// One call of attention. Its rows are the query positions of all heads that share a KV head, or group: [H / G][L].
class Attend {
 public:
  Attend(const GemmKernels& kernels, const AttentionOperands& in, Lane lane, std::vector<const LanesKv*> parts)
      : kernels_(kernels),
        lane_(lane),
        in_bfloat16_(in.query.scalar_type() == at::kBFloat16),
        scale_(static_cast<float>(in.scale)),
        parts_(std::move(parts)),
        heads_(in.query.size(1)),
        groups_(in.key.size(1)),
        length_(in.query.size(2)),
        size_(in.query.size(3)),
        rows_(pack_input(kernels, in.query, lane, {})),
        mask_(in.mask.contiguous()),
        result_(at::empty({in.query.size(0), length_, heads_, size_}, in.query.options())) {
    for (const LanesKv* part : parts_) {
      keys_ += part->count;
      panels_ += part->groups.front().keys.panels;
    }
  }

  Tensor run() {
    const std::int64_t group_rows = heads_ / groups_ * length_;
    const std::int64_t blocks = (group_rows + rows_per_block - 1) / rows_per_block;
    constexpr std::int64_t flop_per_thread = 1 << 21;
    const std::int64_t block_flop = 4 * rows_per_block * keys_ * size_;
    const std::int64_t grain = (flop_per_thread + block_flop - 1) / block_flop;
    at::parallel_for(0, result_.size(0) * groups_ * blocks, grain, [&](std::int64_t begin, std::int64_t end) {
      Work work(*this);
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t first = task % blocks * rows_per_block;
        const Block block{task / blocks, first, std::min(rows_per_block, group_rows - first)};
        score(block, work);
        for (std::int64_t row = 0; row < block.count; ++row) softmax(block, row, work);
        sum_values(block, work);
      }
    });
    return result_.transpose(1, 2);
  }

 private:
  struct Block {
    std::int64_t group;
    std::int64_t first;  // row
    std::int64_t count;
  };

  // A thread's scratch memory.
  struct Work {
    explicit Work(const Attend& attend)
        : scores(make_scratch<float>(attend.panels_ * rows_per_block * panel_width)),
          terms(make_scratch<float>(attend.panels_ * panel_width)),
          weights(make_scratch<std::uint32_t>(attend.weight_stride() * rows_per_block)),
          sums(make_scratch<float>(rows_per_block * panel_width)) {}
    Scratch<float> scores;           // [panels][rows][32]
    Scratch<float> terms;            // [panels][32] of one row's mask
    Scratch<std::uint32_t> weights;  // [rows][weight_stride]
    Scratch<float> sums;             // [rows][32]
  };

  std::int64_t values_per_step() const { return lane_ == Lane::float32 ? 1 : 2; }
  std::int64_t weight_stride() const { return panels_ * panel_width / values_per_step() + 16; }

  void score(const Block& block, Work& work) const {
    const std::int64_t stride = rows_.lanes.size(1);
    const auto* const x = static_cast<const std::uint32_t*>(rows_.lanes.const_data_ptr()) +
                          (block.group * (heads_ / groups_) * length_ + block.first) * stride;
    float* scores = work.scores.get();
    for (const LanesKv* part : parts_) {
      const Lanes& keys = part->groups[static_cast<std::size_t>(block.group)].keys;
      for (std::int64_t panel = 0; panel < keys.panels; ++panel, scores += block.count * panel_width) {
        const std::uint32_t* const lanes = keys.panel(panel);
        multiply_stretch(kernels_, lane_, {x, stride, block.count, keys.steps, &lanes, 1, scores, 0, false});
      }
    }
  }

  // A row's mask, with minus infinity for the padding of panels.
  void read_mask(const Block& block, std::int64_t row, float* terms) const {
    const float* from =
        mask_.const_data_ptr<float>() + (block.group / groups_ * length_ + (block.first + row) % length_) * keys_;
    for (const LanesKv* part : parts_) {
      const std::int64_t padded = part->groups.front().keys.panels * panel_width;
      std::copy_n(from, part->count, terms);
      std::fill(terms + part->count, terms + padded, -std::numeric_limits<float>::infinity());
      from += part->count;
      terms += padded;
    }
  }

  void softmax(const Block& block, std::int64_t row, Work& work) const {
    read_mask(block, row, work.terms.get());
    float* const scores = work.scores.get() + row * panel_width;
    const std::int64_t panel_stride = block.count * panel_width;
    kernels_.layers.softmax(scores, panel_stride, panels_, work.terms.get(), scale_, in_bfloat16_);
    std::uint32_t* to = work.weights.get() + row * weight_stride();
    for (std::int64_t panel = 0; panel < panels_; ++panel, to += panel_width / values_per_step()) {
      const float* const from = scores + panel * panel_stride;
      if (lane_ == Lane::bfloat16_pair) {
        kernels_.narrow_to_bfloat16(from, reinterpret_cast<std::uint16_t*>(to), panel_width);
      } else if (in_bfloat16_) {
        std::uint16_t narrow[panel_width];
        kernels_.narrow_to_bfloat16(from, narrow, panel_width);
        kernels_.widen_bfloat16(narrow, reinterpret_cast<float*>(to), panel_width);
      } else {
        std::copy_n(from, panel_width, reinterpret_cast<float*>(to));
      }
    }
  }

  void sum_values(const Block& block, Work& work) {
    const auto group = static_cast<std::size_t>(block.group);
    for (std::int64_t panel = 0; panel < parts_.front()->groups[group].values.panels; ++panel) {
      const std::uint32_t* weights = work.weights.get();
      for (const LanesKv* part : parts_) {
        const Lanes& values = part->groups[group].values;
        const std::uint32_t* const lanes = values.panel(panel);
        multiply_stretch(kernels_, lane_,
                         {weights, weight_stride(), block.count, values.steps, &lanes, 1, work.sums.get(), 0,
                          part != parts_.front()});
        weights += part->groups[group].keys.panels * panel_width / values_per_step();
      }
      for (std::int64_t row = 0; row < block.count; ++row) {
        const std::int64_t head = block.group % groups_ * (heads_ / groups_) + (block.first + row) / length_;
        const std::int64_t place = block.group / groups_ * length_ + (block.first + row) % length_;
        const std::int64_t at = (place * heads_ + head) * size_ + panel * panel_width;
        kernels_.store(work.sums.get() + row * panel_width, 1, 1, std::min(panel_width, size_ - panel * panel_width),
                       static_cast<std::uint8_t*>(result_.mutable_data_ptr()) + at * result_.element_size(), 0,
                       in_bfloat16_);
      }
    }
  }

  const GemmKernels& kernels_;
  const Lane lane_;
  const bool in_bfloat16_;
  const float scale_;
  const std::vector<const LanesKv*> parts_;  // the prefix's, then the query's own
  const std::int64_t heads_, groups_, length_, size_;
  std::int64_t keys_ = 0, panels_ = 0;  // of all parts
  const PackedInput rows_;
  const Tensor mask_;  // [B, 1, L, keys]
  Tensor result_;      // [B, L, H, D]
};

// The cached form fits every reader: all have the prefix's dtype, which decides the lane.
const LanesKv& packed_prefix(const GemmKernels& kernels, Lane lane, const LayerKv& prefix) {
  if (!prefix.packed) {
    prefix.packed = std::make_shared<const LanesKv>(pack_kv(kernels, lane, prefix.key, prefix.value));
  }
  return static_cast<const LanesKv&>(*prefix.packed);
}

}  // namespace

Tensor fast_attention(const GemmKernels& kernels, const AttentionOperands& in) {
  const bool pairs = in.query.scalar_type() == at::kBFloat16 && kernels.has_pairs;
  const Lane lane = pairs ? Lane::bfloat16_pair : Lane::float32;
  const LanesKv own = pack_kv(kernels, lane, in.key, in.value);
  if (in.prefix == nullptr) return Attend(kernels, in, lane, {&own}).run();
  return Attend(kernels, in, lane, {&packed_prefix(kernels, lane, *in.prefix), &own}).run();
}

}  // namespace pi0::model
