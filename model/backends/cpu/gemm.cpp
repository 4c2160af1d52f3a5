#include "model/backends/cpu/gemm.h"

#include <ATen/Parallel.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <type_traits>

#include "model/backends/cpu/scratch.h"

namespace pi0::model {
namespace {

using at::Tensor;

// A stretch of some panels' lanes takes up to half of a core's second-level cache, beside the rows that
// meet them.
constexpr std::int64_t stretch_steps = 1024;
constexpr std::int64_t stretch_bytes = stretch_steps * panel_width * 4;
constexpr std::int64_t rows_at_once = 64;

std::int64_t panels_at_once() {
  static const std::int64_t cache = std::max(sysconf(_SC_LEVEL2_CACHE_SIZE), 1L << 19);
  return std::clamp<std::int64_t>(cache / 2 / stretch_bytes, 4, most_panels);
}

constexpr std::int64_t stride_padding = 16;  // lanes; keeps rows out of each other's cache sets

// Work below this is not worth waking another thread for.
constexpr std::int64_t flop_per_thread = 1 << 21;
constexpr std::int64_t values_per_thread = 1 << 15;

std::int64_t divided_up(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

bool is_bfloat16(const Tensor& values) {
  const Tensor bits = values.view(at::kInt);
  return !(bits & 0xFFFF).any().item<bool>();
}

// Calls `call` with the bytes of a code as a constant.
template <class Call>
void with_code_size(std::int64_t code_size, const Call& call) {
  switch (code_size) {
    case 1:
      return call(std::integral_constant<std::size_t, 1>{});
    case 2:
      return call(std::integral_constant<std::size_t, 2>{});
    default:
      return call(std::integral_constant<std::size_t, 4>{});
  }
}

// Calls move(byte among the rows' codes [rows][in], byte among the panel's, how many as a constant) for whatever lies
// side by side in both: pairs of codes, and the last one of a row where their number is odd.
template <std::size_t code_size, class Move>
void for_pairs(std::int64_t rows, std::int64_t in, const Move& move) {
  constexpr std::int64_t block = 32;  // pairs; a panel's block of them fits the first-level cache
  constexpr auto size = static_cast<std::int64_t>(code_size);
  for (std::int64_t first = 0; first < in / 2; first += block) {
    const std::int64_t last = std::min(first + block, in / 2);
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t pair = first; pair < last; ++pair) {
        move((row * in + 2 * pair) * size, (pair * panel_width + row) * 2 * size,
             std::integral_constant<std::size_t, 2 * code_size>{});
      }
    }
  }
  for (std::int64_t row = 0; in % 2 != 0 && row < rows; ++row) {
    move((row * in + in - 1) * size, (in / 2 * panel_width + row) * 2 * size,
         std::integral_constant<std::size_t, code_size>{});
  }
}

template <std::size_t code_size>
void fill_panel(const std::uint8_t* codes, std::int64_t rows, std::int64_t in, std::uint8_t* panel) {
  if (rows < panel_width || in % 2 != 0) {
    std::memset(panel, 0, static_cast<std::size_t>(divided_up(in, 2) * panel_width) * 2 * code_size);
  }
  for_pairs<code_size>(rows, in, [=](std::int64_t at_row, std::int64_t at_panel, auto bytes) {
    std::memcpy(panel + at_panel, codes + at_row, bytes());
  });
}

template <std::size_t code_size>
void read_panel(const std::uint8_t* panel, std::int64_t rows, std::int64_t in, std::uint8_t* codes) {
  for_pairs<code_size>(rows, in, [=](std::int64_t at_row, std::int64_t at_panel, auto bytes) {
    std::memcpy(codes + at_row, panel + at_panel, bytes());
  });
}

// The panels of a weight, as they are dealt to threads.
struct Panels {
  std::int64_t out, in;

  std::int64_t count() const { return divided_up(out, panel_width); }
  std::int64_t codes() const { return divided_up(in, 2) * 2 * panel_width; }  // of one
  std::int64_t grain() const { return divided_up(values_per_thread, codes()); }
  std::int64_t rows(std::int64_t panel) const { return std::min(panel_width, out - panel * panel_width); }
};

template <class Source>
void pack_rows(const GemmKernels& kernels, const Tensor& x, PackedInput& packed, const ChangeRow& change) {
  const std::int64_t in = packed.in, stride = packed.lanes.size(1);
  const auto* source = static_cast<const Source*>(x.const_data_ptr());
  auto* lanes = static_cast<std::uint32_t*>(packed.lanes.mutable_data_ptr());
  constexpr bool from_bfloat16 = sizeof(Source) == 2;
  at::parallel_for(0, packed.rows, divided_up(values_per_thread, in), [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> buffer(static_cast<std::size_t>(in));
    for (std::int64_t row = begin; row < end; ++row) {
      const Source* from = source + row * in;
      std::uint32_t* to = lanes + row * stride;
      std::fill(to + (packed.lane == Lane::float32 ? in : in / 2), to + stride, 0U);
      if (from_bfloat16 && packed.lane == Lane::bfloat16_pair && !change) {
        std::memcpy(to, from, static_cast<std::size_t>(in) * 2);
        continue;
      }
      float* floats = packed.lane == Lane::float32 ? reinterpret_cast<float*>(to) : buffer.data();
      if constexpr (from_bfloat16) {
        kernels.widen_bfloat16(from, floats, in);
      } else {
        std::memcpy(floats, from, static_cast<std::size_t>(in) * sizeof(float));
      }
      if (change) change(floats, in);
      if (packed.lane == Lane::bfloat16_pair) {
        kernels.narrow_to_bfloat16(floats, reinterpret_cast<std::uint16_t*>(to), in);
      }
    }
  });
}

// What a thread works in while it multiplies a group of panels.
struct Work {
  Scratch<std::uint32_t> lanes;  // [panels][stretch_steps][32]
  Scratch<float> fresh;          // [panels][rows_at_once][32]
};

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
      if (__builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") && may_use_amx()) {
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

Tensor empty_panels(at::IntArrayRef shape, at::TensorOptions options) {
  const Tensor panels = at::empty(shape, options);
  constexpr std::uintptr_t page = 1 << 21;
  const auto from = reinterpret_cast<std::uintptr_t>(panels.mutable_data_ptr());
  const std::uintptr_t first = (from + page - 1) / page * page, last = (from + panels.nbytes()) / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  return panels;
}

PackedWeight pack_weight(const Tensor& weight) {
  Tensor values = weight.contiguous();
  if (values.scalar_type() == at::kFloat && is_bfloat16(values)) values = values.to(at::kBFloat16);
  const std::int64_t out = values.size(0), in = values.size(1);
  PackedWeight packed{empty_panels({divided_up(out, panel_width), divided_up(in, 2), panel_width, 2}, values.options()),
                      out, in};
  const Panels panels{out, in};
  const std::int64_t size = values.element_size();
  const auto* const from = static_cast<const std::uint8_t*>(values.const_data_ptr());
  auto* const to = static_cast<std::uint8_t*>(packed.panels.mutable_data_ptr());
  at::parallel_for(0, panels.count(), panels.grain(), [&](std::int64_t begin, std::int64_t end) {
    with_code_size(size, [&](auto code_size) {
      for (std::int64_t panel = begin; panel < end; ++panel) {
        fill_panel<code_size()>(from + panel * panel_width * in * size, panels.rows(panel), in,
                                to + panel * panels.codes() * size);
      }
    });
  });
  return packed;
}

PackedWeight encode_weight(const PackedWeight& weight, Format format, const EncodeRows& encode) {
  PackedWeight result{empty_panels(weight.panels.sizes(), weight.panels.options().dtype(dtype_of(format))), weight.out,
                      weight.in};
  const Panels panels{weight.out, weight.in};
  const std::int64_t from_size = weight.panels.element_size(), to_size = result.panels.element_size();
  const auto* const from = static_cast<const std::uint8_t*>(weight.panels.const_data_ptr());
  auto* const to = static_cast<std::uint8_t*>(result.panels.mutable_data_ptr());
  at::parallel_for(0, panels.count(), panels.grain(), [&](std::int64_t begin, std::int64_t end) {
    const auto values = make_scratch<std::uint8_t>(panel_width * weight.in * from_size);
    const auto codes = make_scratch<std::uint8_t>(panel_width * weight.in * to_size);
    for (std::int64_t panel = begin; panel < end; ++panel) {
      const std::int64_t rows = panels.rows(panel);
      with_code_size(from_size, [&](auto code_size) {
        read_panel<code_size()>(from + panel * panels.codes() * from_size, rows, weight.in, values.get());
      });
      encode({values.get(), rows, weight.in, weight.in}, codes.get());
      with_code_size(to_size, [&](auto code_size) {
        fill_panel<code_size()>(codes.get(), rows, weight.in, to + panel * panels.codes() * to_size);
      });
    }
  });
  return result;
}

PackedInput pack_input(const GemmKernels& kernels, const Tensor& x, Lane lane, const ChangeRow& change) {
  const Tensor source = x.contiguous();
  const std::int64_t in = x.size(-1), rows = source.numel() / in;
  const std::int64_t steps = lane == Lane::float32 ? divided_up(in, 2) * 2 : divided_up(in, 2);
  PackedInput packed{at::empty({rows, steps + stride_padding}, at::kInt), lane, rows, in};
  if (source.scalar_type() == at::kBFloat16) {
    pack_rows<std::uint16_t>(kernels, source, packed, change);
  } else {
    TORCH_CHECK(source.scalar_type() == at::kFloat, "pack_input: found ", source.scalar_type(),
                ", expected float32 or bfloat16");
    pack_rows<float>(kernels, source, packed, change);
  }
  return packed;
}

void multiply_stretch(const GemmKernels& kernels, Lane lane, const Run& stretch) {
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
    kernels.multiply(lane, run);
  }
}

void multiply(const GemmKernels& kernels, const std::vector<Product>& products,
              const std::function<void(const Strip&)>& finish, Tensor& result) {
  const std::int64_t rows = products[0].x.rows, out = products[0].weight.out;
  const std::int64_t panels = products[0].weight.panel_count();
  const std::int64_t threads = at::get_num_threads();
  const std::int64_t rounds = divided_up(panels, panels_at_once() * threads);
  const std::int64_t group = divided_up(panels, rounds * threads);  // panels; as many for each thread
  const std::int64_t strip_size = rows * panel_width;
  const std::int64_t group_flop =
      2 * rows * products[0].x.in * panel_width * group * static_cast<std::int64_t>(products.size());
  const std::int64_t grain = divided_up(flop_per_thread, group_flop);
  auto* const out_data = static_cast<std::uint8_t*>(result.mutable_data_ptr());
  const auto multiply_group = [&](const Product& product, std::int64_t first, std::int64_t count, Work& work,
                                  float* sums) {
    const Format format = product.weight.format();
    const Lane lane = product.x.lane;
    const std::int64_t pairs = product.weight.panels.size(1), stride = product.x.lanes.size(1);
    const std::int64_t steps_per_pair = lane == Lane::float32 ? 2 : 1;
    const std::int64_t stretch_pairs = stretch_steps / steps_per_pair;
    const auto* x = static_cast<const std::uint32_t*>(product.x.lanes.const_data_ptr());
    const auto* codes = static_cast<const std::uint8_t*>(product.weight.panels.const_data_ptr());
    const std::int64_t pair_bytes = panel_width * 2 * product.weight.panels.element_size();
    const bool are_lanes = format == Format::bfloat16 && lane == Lane::bfloat16_pair;
    for (std::int64_t pair = 0; pair < pairs; pair += stretch_pairs) {
      const std::int64_t pair_count = std::min(stretch_pairs, pairs - pair);
      std::array<const std::uint32_t*, most_panels> lanes{};
      for (std::int64_t panel = 0; panel < count; ++panel) {
        const std::uint8_t* from = codes + ((first + panel) * pairs + pair) * pair_bytes;
        std::uint32_t* const to = work.lanes.get() + panel * stretch_steps * panel_width;
        if (!are_lanes) kernels.widen(from, format, lane, pair_count, to);
        lanes[static_cast<std::size_t>(panel)] = are_lanes ? reinterpret_cast<const std::uint32_t*>(from) : to;
      }
      for (std::int64_t row = 0; row < rows; row += rows_at_once) {
        const std::int64_t row_count = std::min(rows_at_once, rows - row);
        float* const place = sums + row * panel_width;
        // A stretch is summed on its own, in cache, before it is added to the ones before it.
        const bool first_stretch = pair == 0;
        float* const fresh = first_stretch ? place : work.fresh.get();
        const std::int64_t fresh_stride = first_stretch ? strip_size : rows_at_once * panel_width;
        multiply_stretch(kernels, lane,
                         {x + row * stride + pair * steps_per_pair, stride, row_count, pair_count * steps_per_pair,
                          lanes.data(), count, fresh, fresh_stride, false});
        for (std::int64_t panel = 0; !first_stretch && panel < count; ++panel) {
          kernels.add(place + panel * strip_size, fresh + panel * fresh_stride, row_count * panel_width);
        }
      }
    }
  };
  at::parallel_for(0, divided_up(panels, group), grain, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t group_size = group * strip_size;
    Work work{make_scratch<std::uint32_t>(group * stretch_steps * panel_width),
              make_scratch<float>(group * rows_at_once * panel_width)};
    const auto sums = make_scratch<float>(static_cast<std::int64_t>(products.size()) * group_size);
    Strip strip{0, 0, rows, std::vector<float*>(products.size())};
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t first = task * group, count = std::min(group, panels - first);
      for (std::size_t i = 0; i < products.size(); ++i) {
        multiply_group(products[i], first, count, work, sums.get() + static_cast<std::int64_t>(i) * group_size);
      }
      for (std::int64_t panel = 0; finish && panel < count; ++panel) {
        strip.first_column = (first + panel) * panel_width;
        strip.columns = std::min(panel_width, out - strip.first_column);
        for (std::size_t i = 0; i < products.size(); ++i) {
          strip.sums[i] = sums.get() + static_cast<std::int64_t>(i) * group_size + panel * strip_size;
        }
        finish(strip);
      }
      const std::int64_t first_column = first * panel_width;
      kernels.store(sums.get(), rows, count, std::min(count * panel_width, out - first_column),
                    out_data + first_column * result.element_size(), out, result.scalar_type() == at::kBFloat16);
    }
  });
}

Tensor padded_terms(const Tensor& vector, const PackedWeight& weight) {
  Tensor padded = at::zeros({weight.panel_count() * panel_width}, at::kFloat);
  if (vector.defined()) padded.narrow(0, 0, weight.out).copy_(vector);
  return padded;
}

Tensor fast_linear(const GemmKernels& kernels, const Tensor& x, const PackedWeight& weight, const Tensor& bias) {
  const bool pairs = kernels.has_pairs && x.scalar_type() == at::kBFloat16 && fits_bfloat16(weight.format());
  const PackedInput input = pack_input(kernels, x, pairs ? Lane::bfloat16_pair : Lane::float32, {});
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = weight.out;
  Tensor result = at::empty(shape, x.options());
  const Tensor terms = bias.defined() ? padded_terms(bias, weight) : Tensor{};
  const auto add_bias = [&](const Strip& strip) {
    kernels.add_terms(strip.sums[0], strip.row_count, terms.const_data_ptr<float>() + strip.first_column);
  };
  multiply(kernels, {{input, weight}}, terms.defined() ? std::function<void(const Strip&)>(add_bias) : nullptr, result);
  return result;
}

}  // namespace pi0::model
