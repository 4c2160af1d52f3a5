#include "model/backends/cpu/fast_layers.h"

#include <ATen/Parallel.h>

#include "model/backends/cpu/gemm.h"

namespace pi0::model {
namespace {

using at::Tensor;

constexpr std::int64_t values_per_thread = 1 << 14;

bool is_bfloat16(const Tensor& x) { return x.scalar_type() == at::kBFloat16; }

const std::uint8_t* bytes_of(const Tensor& x) {
  return x.defined() ? static_cast<const std::uint8_t*>(x.const_data_ptr()) : nullptr;
}

}  // namespace

Tensor fast_rms_norm(const GemmKernels& kernels, const Tensor& x, const Tensor& scale, const Tensor& shift,
                     double epsilon) {
  const Tensor in = x.contiguous();
  const std::int64_t width = x.size(-1), length = x.size(1), row_bytes = width * in.element_size();
  Tensor out = padded_result(in, width);
  const std::int64_t out_bytes = out.stride(1) * out.element_size();
  const bool by_sample = scale.numel() > width;
  const std::uint8_t* const from = bytes_of(in);
  auto* const to = static_cast<std::uint8_t*>(out.mutable_data_ptr());
  const auto* scales = scale.const_data_ptr<float>();
  const auto* shifts = shift.defined() ? shift.const_data_ptr<float>() : nullptr;
  at::parallel_for(0, x.size(0) * length, values_per_thread / width + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t terms = by_sample ? row / length * width : 0;
      kernels.layers.rms_norm(from + row * row_bytes, scales + terms, shifts == nullptr ? nullptr : shifts + terms,
                              to + row * out_bytes, width, static_cast<float>(epsilon), is_bfloat16(x));
    }
  });
  return out;
}

Tensor fast_gelu(const GemmKernels& kernels, const Tensor& x, const Tensor& factor) {
  const Tensor in = x.contiguous(), factors = factor.defined() ? factor.contiguous() : factor;
  Tensor out = at::empty_like(in);
  const std::uint8_t *from = bytes_of(in), *times = bytes_of(factors);
  auto* const to = static_cast<std::uint8_t*>(out.mutable_data_ptr());
  at::parallel_for(0, x.numel(), values_per_thread, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t at = begin * x.element_size();
    kernels.layers.gelu(from + at, times == nullptr ? nullptr : times + at, to + at, end - begin, is_bfloat16(x));
  });
  return out;
}

Tensor fast_rotate(const GemmKernels& kernels, const Tensor& x, const Tensor& cos, const Tensor& sin) {
  const std::int64_t heads = x.size(1), length = x.size(2), size = x.size(3);
  Tensor out = at::empty(x.sizes(), x.options());
  const std::uint8_t *from = bytes_of(x), *cosines = bytes_of(cos), *sines = bytes_of(sin);
  auto* const to = static_cast<std::uint8_t*>(out.mutable_data_ptr());
  const std::int64_t bytes = x.element_size();
  at::parallel_for(
      0, x.size(0) * heads * length, values_per_thread / size + 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
          const std::int64_t batch = row / length / heads, head = row / length % heads, place = row % length;
          const std::int64_t head_at = batch * x.stride(0) + head * x.stride(1) + place * x.stride(2);
          const std::int64_t angle_at = (batch * length + place) * size;
          kernels.layers.rotate(from + head_at * bytes, cosines + angle_at * bytes, sines + angle_at * bytes,
                                to + row * size * bytes, size, is_bfloat16(x));
        }
      });
  return out;
}

}  // namespace pi0::model
