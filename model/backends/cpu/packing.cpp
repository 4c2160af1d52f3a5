#include <ATen/Parallel.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "model/backends/cpu/gemm.h"
#include "model/backends/cpu/scratch.h"

namespace pi0::model {
namespace {

using at::Tensor;

constexpr std::int64_t cache_line_bytes = 64;

constexpr std::int64_t values_per_thread = 1 << 15;  // below this another thread is not worth waking

// float32 values as bfloat16 if they all fit; others as they are.
Tensor narrowed(const Tensor& values) {
  if (values.scalar_type() != at::kFloat) return values;
  const bool fit = !(values.view(at::kInt) & 0xFFFF).any().item<bool>();
  return fit ? values.to(at::kBFloat16) : values;
}

// Calls `call` with the size of a code in bytes as a compile-time constant.
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

// Calls move(byte offset in the codes [rows][in], byte offset in the panel, number of bytes as a constant) for
// everything that is contiguous in both: pairs of codes, and the last code of a row of odd length.
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

// The panels of a weight, and how they are divided among threads.
struct Panels {
  std::int64_t out, in;

  std::int64_t count() const { return divided_up(out, panel_width); }
  std::int64_t codes() const { return divided_up(in, 2) * 2 * panel_width; }  // of one panel
  std::int64_t grain() const { return divided_up(values_per_thread, codes()); }
  std::int64_t rows(std::int64_t panel) const { return std::min(panel_width, out - panel * panel_width); }
};

// An odd number of cache lines keeps rows out of each other's cache sets.
std::int64_t padded_stride(std::int64_t count, std::int64_t value_bytes) {
  const std::int64_t line = cache_line_bytes / value_bytes;
  return (divided_up(count, line) | 1) * line;
}

// Whether the memory of x [rows, In] already is lanes, in whole cache lines. Rows that lie a multiple of 512 bytes
// apart share cache sets.
bool are_lanes(const Tensor& x, Lane lane) {
  const at::ScalarType value = lane == Lane::float32 ? at::kFloat : at::kBFloat16;
  if (x.scalar_type() != value || x.size(1) % 2 != 0 || x.stride(1) != 1) return false;
  const std::int64_t stride_bytes = x.stride(0) * x.element_size();
  const bool is_aligned = reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % cache_line_bytes == 0;
  return is_aligned && stride_bytes % cache_line_bytes == 0 && stride_bytes % 512 != 0;
}

template <class Source>
void pack_rows(const GemmKernels& kernels, const Tensor& x, PackedInput& packed, const ChangeRow& change) {
  const std::int64_t in = packed.in, stride = packed.lanes.size(1);
  const auto* source = static_cast<const Source*>(x.const_data_ptr());
  auto* lanes = static_cast<std::uint32_t*>(packed.lanes.mutable_data_ptr());
  constexpr bool from_bfloat16 = sizeof(Source) == 2;
  at::parallel_for(0, packed.rows, divided_up(values_per_thread, in), [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> buffer(static_cast<std::size_t>(in));
    for (std::int64_t row = begin; row < end; ++row) {
      const Source* from = source + row * x.stride(0);
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

}  // namespace

Tensor empty_panels(at::IntArrayRef shape, at::TensorOptions options) {
  constexpr std::size_t page = 1 << 21;
  const auto bytes = static_cast<std::size_t>(c10::multiply_integers(shape)) * options.dtype().itemsize();
  if (bytes < page) return at::empty(shape, options);
  // Fresh from the system: what malloc gives again lies in small pages already.
  const std::size_t reserved = bytes + page;  // address space
  void* const memory = ::mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  TORCH_CHECK_WITH(OutOfMemoryError, memory != MAP_FAILED, "no memory for ", bytes, " bytes of panels");
  const std::size_t before = (page - reinterpret_cast<std::uintptr_t>(memory) % page) % page;  // up to the first page
  auto* const data = static_cast<std::byte*>(memory) + before;
  ::madvise(data, bytes / page * page, MADV_HUGEPAGE);
  return at::from_blob(data, shape, [=](void*) { ::munmap(memory, reserved); }, options);
}

std::vector<std::int64_t> panel_shape(std::int64_t out, std::int64_t in) {
  return {divided_up(out, panel_width), divided_up(in, 2), panel_width, 2};
}

Tensor panels_for(const Tensor& stored, at::ScalarType rounding) {
  return stored.scalar_type() == at::kBFloat16 ? stored : narrowed(stored.to(rounding));
}

PackedWeight pack_weight(const Tensor& weight) {
  const Tensor values = narrowed(weight.contiguous());
  const std::int64_t out = values.size(0), in = values.size(1);
  PackedWeight packed{empty_panels(panel_shape(out, in), values.options()), out, in};
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

Tensor unpack_weight(const PackedWeight& weight) {
  Tensor values = at::empty({weight.out, weight.in}, weight.panels.options());
  const Panels panels{weight.out, weight.in};
  const std::int64_t size = values.element_size();
  const auto* const from = static_cast<const std::uint8_t*>(weight.panels.const_data_ptr());
  auto* const to = static_cast<std::uint8_t*>(values.mutable_data_ptr());
  at::parallel_for(0, panels.count(), panels.grain(), [&](std::int64_t begin, std::int64_t end) {
    with_code_size(size, [&](auto code_size) {
      for (std::int64_t panel = begin; panel < end; ++panel) {
        read_panel<code_size()>(from + panel * panels.codes() * size, panels.rows(panel), weight.in,
                                to + panel * panel_width * weight.in * size);
      }
    });
  });
  return values;
}

Tensor padded_result(const Tensor& x, std::int64_t out_features) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = padded_stride(out_features, x.element_size());
  return at::empty(shape, x.options()).narrow(-1, 0, out_features);
}

PackedInput empty_input(Lane lane, std::int64_t rows, std::int64_t in) {
  const std::int64_t steps = lane == Lane::float32 ? divided_up(in, 2) * 2 : divided_up(in, 2);
  return {at::empty({rows, padded_stride(steps, sizeof(std::uint32_t))}, at::kInt), lane, rows, in};
}

PackedInput pack_input(const GemmKernels& kernels, const Tensor& x, Lane lane, const ChangeRow& change) {
  const std::int64_t in = x.size(-1), rows = x.numel() / in;
  const Tensor as_rows = x.reshape({rows, in});
  if (!change && are_lanes(as_rows, lane)) return {as_rows.view(at::kInt), lane, rows, in};
  const Tensor source = as_rows.stride(1) == 1 ? as_rows : as_rows.contiguous();
  PackedInput packed = empty_input(lane, rows, in);
  if (source.scalar_type() == at::kBFloat16) {
    pack_rows<std::uint16_t>(kernels, source, packed, change);
  } else {
    TORCH_CHECK(source.scalar_type() == at::kFloat, "pack_input: found ", source.scalar_type(),
                ", expected float32 or bfloat16");
    pack_rows<float>(kernels, source, packed, change);
  }
  return packed;
}

Tensor padded_terms(const Tensor& vector, const PackedWeight& weight) {
  Tensor padded = at::zeros({weight.panel_count() * panel_width}, at::kFloat);
  if (vector.defined()) padded.narrow(0, 0, weight.out).copy_(vector);
  return padded;
}

}  // namespace pi0::model
