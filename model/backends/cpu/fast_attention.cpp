#include "model/backends/cpu/fast_attention.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "model/attention.h"
#include "model/backends/cpu/scratch.h"

namespace pi0::model {
namespace {

using at::Tensor;

constexpr std::int64_t rows_per_block = 48;
constexpr std::int64_t row_padding = 16;  // lanes; keeps rows out of each other's cache sets

// How a lane is made of the values of its step.
struct FromPair {
  using Value = std::uint16_t;
  static constexpr std::int64_t values = 2;
  static std::uint32_t lane(Value first, Value second) { return first | static_cast<std::uint32_t>(second) << 16; }
};
struct FromBfloat16 {
  using Value = std::uint16_t;
  static constexpr std::int64_t values = 1;
  static std::uint32_t lane(Value value, Value) { return static_cast<std::uint32_t>(value) << 16; }
};
struct FromFloat {
  using Value = float;
  static constexpr std::int64_t values = 1;
  static std::uint32_t lane(Value value, Value) { return std::bit_cast<std::uint32_t>(value); }
};

// The values [inputs][columns] of a panel, and how far they lie apart.
struct PanelValues {
  std::int64_t inputs, input_stride;
  std::int64_t columns, column_stride;
};

// Lanes [steps][32] of a panel, with zeros for the padding.
template <class Source>
void fill_lanes(const typename Source::Value* from, const PanelValues& in, std::int64_t steps, std::uint32_t* to) {
  const std::int64_t whole = in.inputs / Source::values;
  if (in.columns < panel_width || whole < steps) std::fill_n(to, steps * panel_width, 0U);
  for (std::int64_t step = 0; step < whole; ++step, from += Source::values * in.input_stride) {
    const std::int64_t second = (Source::values - 1) * in.input_stride;
    if (in.columns == panel_width && in.column_stride == 1) {  // as vectors
      for (std::int64_t i = 0; i < panel_width; ++i)
        to[step * panel_width + i] = Source::lane(from[i], from[i + second]);
    } else {
      for (std::int64_t i = 0; i < in.columns; ++i) {
        const auto* const value = from + i * in.column_stride;
        to[step * panel_width + i] = Source::lane(value[0], value[second]);
      }
    }
  }
  for (std::int64_t i = 0; in.inputs % Source::values != 0 && i < in.columns; ++i) {
    to[whole * panel_width + i] = Source::lane(from[i * in.column_stride], 0);
  }
}

// Keys or values as the kernels multiply them: of every KV head the lanes of a weight [Out, In].
struct Lanes {
  Lanes(Lane lane, const Tensor& weights)  // [B, G, Out, In]
      : panels(divided_up(weights.size(2), panel_width)),
        steps(lane == Lane::float32 ? divided_up(weights.size(3), 2) * 2 : divided_up(weights.size(3), 2)),
        memory(make_scratch<std::uint32_t>(weights.size(0) * weights.size(1) * panels * steps * panel_width)) {
    if (lane == Lane::bfloat16_pair) {
      fill<FromPair>(weights);
    } else {
      weights.scalar_type() == at::kBFloat16 ? fill<FromBfloat16>(weights) : fill<FromFloat>(weights);
    }
  }

  std::uint32_t* panel(std::int64_t head, std::int64_t index) const {
    return memory.get() + (head * panels + index) * steps * panel_width;
  }

  template <class Source>
  void fill(const Tensor& weights) {
    const std::int64_t heads = weights.size(1), out = weights.size(2), in = weights.size(3);
    const auto* const values = static_cast<const typename Source::Value*>(weights.const_data_ptr());
    const std::int64_t grain = divided_up(1 << 15, panel_width * in);
    at::parallel_for(0, weights.size(0) * heads * panels, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t head = task / panels, first = task % panels * panel_width;
        const auto* const from =
            values + head / heads * weights.stride(0) + head % heads * weights.stride(1) + first * weights.stride(2);
        fill_lanes<Source>(from, {in, weights.stride(3), std::min(panel_width, out - first), weights.stride(2)}, steps,
                           panel(head, task % panels));
      }
    });
  }

  std::int64_t panels, steps;
  Scratch<std::uint32_t> memory;  // [B · G][panels][steps][32]
};

// Keys and values [B, G, P, D] in the layout of the kernels; G is the number of KV heads.
struct LanesKv : PackedKv {
  LanesKv(Lane form, const Tensor& key, const Tensor& value)
      : lane(form), count(key.size(2)), keys(form, key), values(form, value.transpose(2, 3)) {}

  Lane lane;
  std::int64_t count;  // P
  Lanes keys;          // of [P, D]
  Lanes values;        // of [D, P]
};

// One call of attention. Its rows are the query positions of all heads that share a KV head, or group: [H / G][L].
class Attend {
 public:
  Attend(const GemmKernels& kernels, const AttentionOperands& in, Lane lane, std::vector<const LanesKv*> parts)
      : kernels_(kernels),
        lane_(lane),
        is_eager_(in.form == AttentionForm::eager),
        in_bfloat16_(in.query.scalar_type() == at::kBFloat16),
        weight_form_(!in_bfloat16_           ? WeightForm::float32
                     : lane == Lane::float32 ? WeightForm::bfloat16_as_float32
                                             : WeightForm::bfloat16),
        scale_(static_cast<float>(in.scale)),
        parts_(std::move(parts)),
        heads_(in.query.size(1)),
        groups_(in.key.size(1)),
        length_(in.query.size(2)),
        size_(in.query.size(3)),
        query_(in.query.stride(3) == 1 ? in.query : in.query.contiguous()),
        mask_(in.mask.defined() ? in.mask.contiguous() : in.mask),
        result_(at::empty({in.query.size(0), length_, heads_, size_}, in.query.options())) {
    for (const LanesKv* part : parts_) {
      keys_ += part->count;
      panels_ += part->keys.panels;
    }
  }

  Tensor run() {
    const std::int64_t group_rows = heads_ / groups_ * length_;
    const std::int64_t block_rows = divided_up(group_rows, blocks_of_group(group_rows));
    const std::int64_t blocks = divided_up(group_rows, block_rows);
    constexpr std::int64_t flop_per_thread = 1 << 21;
    const std::int64_t grain = divided_up(flop_per_thread, 4 * block_rows * keys_ * size_);
    at::parallel_for(0, result_.size(0) * groups_ * blocks, grain, [&](std::int64_t begin, std::int64_t end) {
      Work work(*this);
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t first = task % blocks * block_rows;
        const Block block{task / blocks, first, std::min(block_rows, group_rows - first)};
        score(block, work);
        for (std::int64_t row = 0; row < block.count; ++row) weigh(block, row, work);
        sum_values(block, work);
        store(block, work);
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

  struct Place {
    std::int64_t sample, head, position;
  };

  // A thread's scratch memory.
  struct Work {
    explicit Work(const Attend& attend)
        : query(make_scratch<std::uint32_t>(attend.query_stride() * rows_per_block)),
          scores(make_scratch<float>(attend.panels_ * rows_per_block * panel_width)),
          terms(make_scratch<float>(attend.panels_ * panel_width)),
          weights(make_scratch<std::uint32_t>(attend.weight_stride() * rows_per_block)),
          sums(make_scratch<float>(attend.parts_.front()->values.panels * rows_per_block * panel_width)) {}
    Scratch<std::uint32_t> query;    // [rows][query_stride]
    Scratch<float> scores;           // [panels][rows][32]
    Scratch<float> terms;            // [panels][32] of one row's mask
    Scratch<std::uint32_t> weights;  // [rows][weight_stride]
    Scratch<float> sums;             // [panels][rows][32]
    float factors[rows_per_block];   // of the sums
  };

  // Where there are only a few blocks, as in a denoise step, each thread gets as many rows as another.
  std::int64_t blocks_of_group(std::int64_t group_rows) const {
    const std::int64_t groups = result_.size(0) * groups_, threads = at::get_num_threads();
    const std::int64_t blocks = divided_up(group_rows, rows_per_block);
    if (groups * blocks > 4 * threads) return blocks;
    return std::max(blocks, divided_up(groups * blocks, threads) * threads / groups);
  }

  std::int64_t values_per_step() const { return lane_ == Lane::float32 ? 1 : 2; }
  std::int64_t query_stride() const { return parts_.front()->keys.steps + row_padding; }
  std::int64_t weight_stride() const { return panels_ * panel_width / values_per_step() + row_padding; }

  Place place_of(const Block& block, std::int64_t row) const {
    const std::int64_t at = block.first + row;
    return {block.group / groups_, block.group % groups_ * (heads_ / groups_) + at / length_, at % length_};
  }

  void read_query(const Block& block, Work& work) const {
    for (std::int64_t row = 0; row < block.count; ++row) {
      const Place place = place_of(block, row);
      const std::int64_t at =
          place.sample * query_.stride(0) + place.head * query_.stride(1) + place.position * query_.stride(2);
      const auto* const from = static_cast<const std::uint8_t*>(query_.const_data_ptr()) + at * query_.element_size();
      std::uint32_t* const to = work.query.get() + row * query_stride();
      to[parts_.front()->keys.steps - 1] = 0;  // padding if the size is odd
      if (weight_form_ == WeightForm::bfloat16_as_float32) {
        kernels_.widen_bfloat16(reinterpret_cast<const std::uint16_t*>(from), reinterpret_cast<float*>(to), size_);
      } else {
        std::memcpy(to, from, static_cast<std::size_t>(size_ * result_.element_size()));
      }
    }
  }

  // Rows x times the panels of one group, to sums [panels][rows][32].
  void multiply(const Lanes& lanes, const Block& block, const std::uint32_t* x, std::int64_t stride, float* sums,
                bool go_on) const {
    const std::int64_t panel_sums = block.count * panel_width;
    std::array<const std::uint32_t*, most_panels> some;
    for (std::int64_t first = 0; first < lanes.panels; first += most_panels) {
      const std::int64_t count = std::min(most_panels, lanes.panels - first);
      for (std::int64_t i = 0; i < count; ++i) some[static_cast<std::size_t>(i)] = lanes.panel(block.group, first + i);
      multiply_stretch(
          kernels_, lane_,
          {x, stride, block.count, lanes.steps, some.data(), count, sums + first * panel_sums, panel_sums, go_on});
    }
  }

  void score(const Block& block, Work& work) const {
    read_query(block, work);
    float* scores = work.scores.get();
    for (const LanesKv* part : parts_) {
      multiply(part->keys, block, work.query.get(), query_stride(), scores, false);
      scores += part->keys.panels * block.count * panel_width;
    }
  }

  // A row's mask, with minus infinity for the padding of panels.
  void read_mask(const Block& block, std::int64_t row, float* terms) const {
    const Place place = place_of(block, row);
    std::int64_t at = (place.sample * length_ + place.position) * keys_;
    for (const LanesKv* part : parts_) {
      const std::int64_t padded = part->keys.panels * panel_width;
      mask_.defined() ? std::copy_n(mask_.const_data_ptr<float>() + at, part->count, terms)
                      : std::fill_n(terms, part->count, 0.0F);
      std::fill(terms + part->count, terms + padded, -std::numeric_limits<float>::infinity());
      at += part->count;
      terms += padded;
    }
  }

  void weigh(const Block& block, std::int64_t row, Work& work) const {
    read_mask(block, row, work.terms.get());
    const ScoreRow scores{work.scores.get() + row * panel_width, block.count * panel_width, panels_, work.terms.get(),
                          scale_};
    std::uint32_t* const weights = work.weights.get() + row * weight_stride();
    if (is_eager_) {
      kernels_.layers.softmax(scores, weight_form_, weights);
    } else {
      work.factors[row] = 1.0F / kernels_.layers.exponentials(scores, weight_form_, weights);
    }
  }

  void sum_values(const Block& block, Work& work) const {
    const std::uint32_t* weights = work.weights.get();
    for (const LanesKv* part : parts_) {
      multiply(part->values, block, weights, weight_stride(), work.sums.get(), part != parts_.front());
      weights += part->keys.panels * panel_width / values_per_step();
    }
    if (is_eager_) return;
    float* sums = work.sums.get();
    for (std::int64_t i = 0; i < parts_.front()->values.panels * block.count; ++i, sums += panel_width) {
      for (std::int64_t column = 0; column < panel_width; ++column) sums[column] *= work.factors[i % block.count];
    }
  }

  void store(const Block& block, const Work& work) {
    const std::int64_t size_bytes = size_ * result_.element_size();
    for (std::int64_t row = 0, rows = 0; row < block.count; row += rows) {
      const Place place = place_of(block, row);
      rows = std::min(block.count - row, length_ - place.position);  // of the same head
      auto* const to = static_cast<std::uint8_t*>(result_.mutable_data_ptr()) +
                       ((place.sample * length_ + place.position) * heads_ + place.head) * size_bytes;
      for (std::int64_t column = 0; column < size_; column += panel_width) {
        kernels_.store(work.sums.get() + column * block.count + row * panel_width, rows, 1,
                       std::min(panel_width, size_ - column), to + column * result_.element_size(), heads_ * size_,
                       in_bfloat16_);
      }
    }
  }

  const GemmKernels& kernels_;
  const Lane lane_;
  const bool is_eager_, in_bfloat16_;
  const WeightForm weight_form_;
  const float scale_;
  const std::vector<const LanesKv*> parts_;  // the prefix's, then the query's own
  const std::int64_t heads_, groups_, length_, size_;
  std::int64_t keys_ = 0, panels_ = 0;  // of all parts
  const Tensor query_;                  // [B, H, L, D], the values of a position side by side
  const Tensor mask_;                   // [B, 1, L, keys]; undefined: none
  Tensor result_;                       // [B, L, H, D]
};

// Cached, but packed anew for a reader of other lanes.
const LanesKv& packed_prefix(Lane lane, const LayerKv& prefix) {
  const auto* const cached = static_cast<const LanesKv*>(prefix.packed.get());
  if (cached != nullptr && cached->lane == lane) return *cached;
  const auto packed = std::make_shared<const LanesKv>(lane, prefix.key, prefix.value);
  prefix.packed = packed;
  return *packed;
}

}  // namespace

Tensor fast_attention(const GemmKernels& kernels, const AttentionOperands& in) {
  const bool pairs = in.query.scalar_type() == at::kBFloat16 && kernels.has_pairs;
  const Lane lane = pairs ? Lane::bfloat16_pair : Lane::float32;
  const LanesKv own(lane, in.key, in.value);
  if (in.prefix == nullptr) return Attend(kernels, in, lane, {&own}).run();
  return Attend(kernels, in, lane, {&packed_prefix(lane, *in.prefix), &own}).run();
}

}  // namespace pi0::model
