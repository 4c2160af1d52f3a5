#include "model/backends/cpu/gemm.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "model/backends/cpu/product_scales.h"
#include "model/backends/cpu/scratch.h"

namespace pi0::model {
namespace {

using at::Tensor;

// A stretch of some panels' lanes takes up to half of a core's second-level cache, beside the rows that
// meet them.
constexpr std::int64_t stretch_steps = 1024;
constexpr std::int64_t stretch_bytes = stretch_steps * panel_width * 4;
constexpr std::int64_t rows_at_once = 64;

// Few rows pass over lanes only once: lanes are widened run by run then, into the first-level cache.
bool are_few(std::int64_t rows) { return rows <= rows_at_once; }

std::int64_t panels_at_once(std::int64_t rows) {
  if (are_few(rows)) return 1;
  static const std::int64_t cache = std::max(sysconf(_SC_LEVEL2_CACHE_SIZE), 1L << 19);
  return std::clamp<std::int64_t>(cache / 2 / stretch_bytes, 4, most_panels);
}

// Work below this is not worth waking another thread for.
constexpr std::int64_t flop_per_thread = 1 << 21;

double seconds_of(const GemmKernels& kernels, Lane lane) {
  constexpr std::int64_t rows = 48, steps = run_steps;
  const auto x = make_scratch<std::uint32_t>(rows * steps);
  const auto lanes = make_scratch<std::uint32_t>(steps * panel_width);
  const auto sums = make_scratch<float>(rows * panel_width);
  std::fill_n(x.get(), rows * steps, 0x3F803F80U);
  std::fill_n(lanes.get(), steps * panel_width, 0x3F803F80U);
  const std::uint32_t* const panel = lanes.get();
  double best = 1e9;
  for (int repeat = 0; repeat < 50; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    kernels.multiply(lane, {x.get(), steps, rows, steps, &panel, 1, sums.get(), 0, false});
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count() / (lane == Lane::bfloat16_pair ? 2 : 1));
  }
  return best;
}

}  // namespace

std::string_view name_of(InstructionSet set) {
  switch (set) {
    case InstructionSet::avx2:
      return "avx2";
    case InstructionSet::avx512:
      return "avx512";
    case InstructionSet::avx512_bf16:
      return "avx512_bf16";
    case InstructionSet::amx_bf16:
      return "amx_bf16";
    case InstructionSet::portable:
      break;
  }
  return "portable";
}

std::vector<InstructionSet> instruction_sets() {
  std::vector<InstructionSet> sets = {InstructionSet::portable};
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    sets.push_back(InstructionSet::avx2);
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    sets.push_back(InstructionSet::avx512);
    if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi")) {
      sets.push_back(InstructionSet::avx512_bf16);
      if (may_use_amx()) {
        sets.push_back(InstructionSet::amx_bf16);
      }
    }
  }
#endif
  return sets;
}

InstructionSet fastest_instruction_set() {
  InstructionSet fastest = InstructionSet::portable;
  double least = 1e9;
  for (const InstructionSet set : instruction_sets()) {
    const GemmKernels& kernels = gemm_kernels(set);
    const double seconds = seconds_of(kernels, kernels.has_pairs ? Lane::bfloat16_pair : Lane::float32);
    if (seconds < least) {
      least = seconds;
      fastest = set;
    }
  }
  return fastest;
}

const GemmKernels& gemm_kernels(InstructionSet set) {
  switch (set) {
#ifdef __x86_64__
    case InstructionSet::avx2:
      return avx2_gemm();
    case InstructionSet::avx512:
      return avx512_gemm();
    case InstructionSet::avx512_bf16:
      return avx512_bf16_gemm();
    case InstructionSet::amx_bf16:
      return amx_bf16_gemm();
#endif
    default:
      return portable_gemm();
  }
}

namespace {

// Calls multiply(run, its first step in the stretch).
template <class Multiply>
void for_runs(const Run& stretch, const Multiply& multiply) {
  std::array<const std::uint32_t*, most_panels> lanes{};
  for (std::int64_t step = 0; step < stretch.steps; step += run_steps) {
    for (std::int64_t panel = 0; panel < stretch.panels; ++panel) {
      lanes[static_cast<std::size_t>(panel)] = stretch.lanes[panel] + step * panel_width;
    }
    Run run = stretch;
    run.x += step;
    run.steps = std::min(run_steps, stretch.steps - step);
    run.lanes = lanes.data();
    run.go_on = stretch.go_on || step > 0;
    multiply(run, step);
  }
}

}  // namespace

void multiply_stretch(const GemmKernels& kernels, Lane lane, const Run& stretch) {
  for_runs(stretch, [&](const Run& run, std::int64_t) { kernels.multiply(lane, run); });
}

void multiply_stretch_in_order(const GemmKernels& kernels, const formats::Accumulator& accumulator, const Run& stretch,
                               std::int64_t first_step, bool is_last) {
  for_runs(stretch, [&](const Run& run, std::int64_t step) {
    kernels.multiply_in_order(accumulator, run, first_step + step, is_last && step + run.steps == stretch.steps);
  });
}

namespace {

// One product's weight and input as the loops walk through them.
struct Operands {
  explicit Operands(const Product& product)
      : lane(product.x.lane),
        accumulator(product.accumulator),
        scales(product),
        format(scales.is_coded() ? Format::float32 : product.weight.format()),
        rows(product.x.rows),
        pairs(product.weight.panels.size(1)),
        stride(product.x.lanes.stride(0)),
        pair_bytes(product.weight.panels.stride(1) * product.weight.panels.element_size()),
        x(static_cast<const std::uint32_t*>(product.x.lanes.const_data_ptr())),
        codes(static_cast<const std::uint8_t*>(product.weight.panels.const_data_ptr())),
        in(product.x.in),
        first(product.first.defined() ? product.first.const_data_ptr<float>() : nullptr) {
    TORCH_CHECK(!is_ordered() || (lane == Lane::float32 && !scales.left_for_sums()),
                "multiply: sums in order need lanes of float32 that hold values");
  }

  std::int64_t steps_per_pair() const { return lane == Lane::float32 ? 2 : 1; }
  bool is_ordered() const { return accumulator.is_ordered(); }
  const std::uint8_t* codes_of(std::int64_t panel, std::int64_t pair = 0) const {
    return codes + (panel * pairs + pair) * pair_bytes;
  }
  bool codes_are_lanes() const { return format == Format::bfloat16 && lane == Lane::bfloat16_pair; }

  Lane lane;
  formats::Accumulator accumulator;
  ProductScales scales;
  Format format;  // of the weight's codes if it is a plain cast
  std::int64_t rows;
  std::int64_t pairs;       // of a panel
  std::int64_t stride;      // lanes from row to row of x
  std::int64_t pair_bytes;  // of a panel's codes
  const std::uint32_t* x;
  const std::uint8_t* codes;
  std::int64_t in;
  const float* first;  // [panels][32] that sums in order begin with; null: 0
};

// Some panels that one thread multiplies in one go.
struct PanelGroup {
  std::int64_t first, count;
};

// A part of a stretch: all of it, or one run if rows are few.
struct Part : Stretch {
  Ahead ahead;
};

// What a thread works in; both hold a group of panels.
class GroupProduct {
 public:
  GroupProduct(const GemmKernels& kernels, std::int64_t most_panels_of_group)
      : kernels_(kernels),
        lanes_(make_scratch<std::uint32_t>(most_panels_of_group * stretch_steps * panel_width)),
        fresh_(make_scratch<float>(most_panels_of_group * rows_at_once * panel_width)) {}

  // sums [panels of the group][rows][32]. `next`: the codes that this thread reads after these; null: none.
  void multiply(const Operands& in, PanelGroup group, const std::uint8_t* next, float* sums) {
    if (in.is_ordered()) begin_sums(in, group, sums);
    const std::int64_t scaled_pairs = in.scales.group_pairs();
    const std::int64_t stretch_pairs = scaled_pairs > 0 ? scaled_pairs : stretch_steps / in.steps_per_pair();
    const std::int64_t part_pairs = are_few(in.rows) ? run_steps / in.steps_per_pair() : stretch_pairs;
    for (std::int64_t pair = 0; pair < in.pairs; pair += stretch_pairs) {
      const Stretch stretch{pair, std::min(stretch_pairs, in.pairs - pair)};
      for (std::int64_t first = pair; first < stretch.end(); first += part_pairs) {
        const Stretch codes{first, std::min(part_pairs, stretch.end() - first)};
        widen(in, group, codes);
        const Part part{codes, ahead_of(in, group, codes, next)};
        for (std::int64_t row = 0; row < in.rows; row += rows_at_once) add_rows(in, group, stretch, part, row, sums);
      }
    }
    if (scaled_pairs > 0 || !in.scales.left_for_sums()) return;
    for (std::int64_t panel = 0; panel < group.count; ++panel) {
      float* const own = sums + panel * in.rows * panel_width;
      kernels_.add_scaled(own, own, in.rows, in.scales.of_sums(group.first + panel, 0, 0, false));
    }
  }

 private:
  void widen(const Operands& in, PanelGroup group, Stretch stretch) {
    for (std::int64_t panel = 0; panel < group.count; ++panel) {
      const std::uint8_t* const from = in.codes_of(group.first + panel, stretch.first_pair);
      std::uint32_t* const to = lanes_.get() + panel * stretch_steps * panel_width;
      if (in.scales.is_coded()) {
        in.scales.widen(kernels_, from, group.first + panel, {stretch.first_pair, stretch.pairs}, to);
      } else if (!in.codes_are_lanes()) {
        kernels_.widen(from, in.format, in.lane, stretch.pairs, to);
      }
      panel_lanes_[static_cast<std::size_t>(panel)] =
          in.codes_are_lanes() ? reinterpret_cast<const std::uint32_t*>(from) : to;
    }
  }

  // As many codes as are multiplied meanwhile, which they follow.
  static Ahead ahead_of(const Operands& in, PanelGroup group, Stretch codes, const std::uint8_t* next) {
    if (!are_few(in.rows)) return {};
    return {codes.end() < in.pairs ? in.codes_of(group.first, codes.end()) : next, in.pair_bytes / in.steps_per_pair()};
  }

  static void begin_sums(const Operands& in, PanelGroup group, float* sums) {
    const std::int64_t panel_size = in.rows * panel_width;
    if (in.first == nullptr) std::fill_n(sums, group.count * panel_size, 0.0F);
    for (std::int64_t i = 0; in.first != nullptr && i < group.count * in.rows; ++i) {
      std::copy_n(in.first + (group.first + i / in.rows) * panel_width, panel_width, sums + i * panel_width);
    }
  }

  void add_rows_in_order(const Operands& in, PanelGroup group, Stretch stretch, std::int64_t row, float* sums) {
    const std::int64_t first_step = 2 * stretch.first_pair, end = first_step + 2 * stretch.pairs;
    multiply_stretch_in_order(kernels_, in.accumulator,
                              {.x = in.x + row * in.stride + first_step,
                               .stride = in.stride,
                               .rows = std::min(rows_at_once, in.rows - row),
                               .steps = std::min(end, in.in) - first_step,  // padding is no product
                               .lanes = panel_lanes_.data(),
                               .panels = group.count,
                               .sums = sums + row * panel_width,
                               .sums_stride = in.rows * panel_width,
                               .go_on = true},
                              first_step, end >= in.in);
  }

  // A stretch is summed by itself, in cache, before it is added to the ones before it. `part` is of it.
  void add_rows(const Operands& in, PanelGroup group, Stretch stretch, const Part& part, std::int64_t row,
                float* sums) {
    if (in.is_ordered()) return add_rows_in_order(in, group, part, row, sums);
    const std::int64_t row_count = std::min(rows_at_once, in.rows - row);
    const std::int64_t sums_stride = in.rows * panel_width;
    float* const target = sums + row * panel_width;
    const bool is_scaled = in.scales.group_pairs() > 0;
    const bool is_first = stretch.first_pair == 0 && !is_scaled;
    const std::int64_t fresh_stride = rows_at_once * panel_width;
    multiply_stretch(kernels_, in.lane,
                     {.x = in.x + row * in.stride + part.first_pair * in.steps_per_pair(),
                      .stride = in.stride,
                      .rows = row_count,
                      .steps = part.pairs * in.steps_per_pair(),
                      .lanes = panel_lanes_.data(),
                      .panels = group.count,
                      .sums = is_first ? target : fresh_.get(),
                      .sums_stride = is_first ? sums_stride : fresh_stride,
                      .go_on = part.first_pair > stretch.first_pair,
                      .ahead = part.ahead});
    if (is_first || part.end() < stretch.end()) return;
    for (std::int64_t panel = 0; panel < group.count; ++panel) {
      float* const own = target + panel * sums_stride;
      const float* const fresh = fresh_.get() + panel * fresh_stride;
      if (is_scaled) {
        const bool go_on = stretch.first_pair > 0;
        kernels_.add_scaled(own, fresh, row_count,
                            in.scales.of_sums(group.first + panel, row, 2 * stretch.first_pair, go_on));
      } else {
        kernels_.add(own, fresh, row_count * panel_width);
      }
    }
  }

  const GemmKernels& kernels_;
  Scratch<std::uint32_t> lanes_;  // [panels][stretch_steps][32]
  Scratch<float> fresh_;          // [panels][rows_at_once][32]
  std::array<const std::uint32_t*, most_panels> panel_lanes_{};
};

}  // namespace

void multiply(const GemmKernels& kernels, const std::vector<Product>& products,
              const std::function<void(const Strip&)>& finish, Tensor& result) {
  const std::vector<Operands> operands(products.begin(), products.end());
  const auto product_count = static_cast<std::int64_t>(products.size());
  const std::int64_t rows = operands[0].rows, out = products[0].weight.out;
  const std::int64_t panels = products[0].weight.panel_count();
  const std::int64_t threads = at::get_num_threads();
  const std::int64_t rounds = divided_up(panels, panels_at_once(rows) * threads);
  const std::int64_t groups = std::min(rounds * threads, panels);  // of as many panels for each thread
  const std::int64_t most_of_group = divided_up(panels, groups);
  const std::int64_t strip_size = rows * panel_width, group_size = most_of_group * strip_size;
  const std::int64_t group_flop = 2 * products[0].x.in * group_size * product_count;
  auto* const out_data = static_cast<std::uint8_t*>(result.mutable_data_ptr());
  const std::int64_t out_stride = result.dim() > 1 ? result.stride(-2) : out;

  const auto work = [&](std::int64_t begin, std::int64_t end) {
    GroupProduct product(kernels, most_of_group);
    const auto sums = make_scratch<float>(product_count * group_size);
    Strip strip{0, 0, rows, std::vector<float*>(products.size())};
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t first = task * panels / groups;
      const PanelGroup group{first, (task + 1) * panels / groups - first};
      for (std::int64_t i = 0; i < product_count; ++i) {
        const std::uint8_t* next = nullptr;
        if (i + 1 < product_count) {
          next = operands[static_cast<std::size_t>(i + 1)].codes_of(first);
        } else if (task + 1 < end) {
          next = operands[0].codes_of(first + group.count);
        }
        product.multiply(operands[static_cast<std::size_t>(i)], group, next, sums.get() + i * group_size);
      }
      for (std::int64_t panel = 0; finish && panel < group.count; ++panel) {
        strip.first_column = (first + panel) * panel_width;
        strip.columns = std::min(panel_width, out - strip.first_column);
        for (std::int64_t i = 0; i < product_count; ++i) {
          strip.sums[static_cast<std::size_t>(i)] = sums.get() + i * group_size + panel * strip_size;
        }
        finish(strip);
      }
      const std::int64_t first_column = first * panel_width;
      kernels.store(sums.get(), rows, group.count, std::min(group.count * panel_width, out - first_column),
                    out_data + first_column * result.element_size(), out_stride, result.scalar_type() == at::kBFloat16);
    }
  };
  at::parallel_for(0, groups, divided_up(flop_per_thread, group_flop), work);
}

}  // namespace pi0::model
