#include "model/number_rounding.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <mutex>

#include "quant/formats/rounding_value.h"

namespace pi0::model {
namespace {

using formats::Granularity;
using formats::Range;
using formats::Rows;

constexpr std::int64_t scaled_values_per_task = 1 << 15;

bool needs_range(const NumberFormat& format) {
  return format.granularity == Granularity::tensor || format.rule == formats::Rule::two_level;
}

Rows<const float> stretch(const Rows<const float>& rows, std::int64_t begin, std::int64_t end) {
  return {rows.values + begin * rows.stride, end - begin, rows.length, rows.stride};
}

// Calls work(first row, end) from several threads, for multiples of `multiple` rows.
template <class Work>
void for_rows(std::int64_t rows, std::int64_t length, std::int64_t multiple, const Work& work) {
  const std::int64_t units = (rows + multiple - 1) / multiple;
  const std::int64_t grain =
      std::max<std::int64_t>(1, scaled_values_per_task / std::max<std::int64_t>(1, length * multiple));
  at::parallel_for(0, units, grain, [&](std::int64_t begin, std::int64_t end) {
    work(begin * multiple, std::min(end * multiple, rows));
  });
}

std::int64_t rows_that_share(const NumberFormat& format) {
  return format.granularity == Granularity::tile ? format.group : 1;
}

// Rounds all rows of one tensor to `to`, which has their stride.
void round_one_tensor(const Rows<const float>& from, float* to, const NumberFormat& format,
                      const std::optional<Range>& given = {}) {
  const ScaledKernels& kernels = best_scaled_kernels();
  const Range range = given ? *given : range_of(kernels, from, format);
  for_rows(from.rows, from.length, rows_that_share(format), [&](std::int64_t begin, std::int64_t end) {
    kernels.round(stretch(from, begin, end), to + begin * from.stride, format, range);
  });
}

}  // namespace

const ScaledKernels& scaled_kernels(InstructionSet set) {
  switch (set) {
#ifdef __x86_64__
    case InstructionSet::avx2:
      return formats::avx2_scaled();
    case InstructionSet::avx512:
    case InstructionSet::avx512_bf16:
    case InstructionSet::amx_bf16:
      return formats::avx512_scaled();
#endif
    default:
      return formats::portable_scaled();
  }
}

const ScaledKernels& best_scaled_kernels() {
  static const InstructionSet best = instruction_sets().back();
  return scaled_kernels(best);
}

float tensor_scale_of(const NumberFormat& format, const Range& tensor) {
  if (format.rule != formats::Rule::two_level) return 1;
  return formats::two_level_scale(std::max(-tensor.smallest, tensor.largest), format.element);
}

Range range_of(const ScaledKernels& kernels, const Rows<const float>& values, const NumberFormat& format) {
  Range range;
  if (!needs_range(format)) return range;
  std::mutex mutex;
  for_rows(values.rows, values.length, 1, [&](std::int64_t begin, std::int64_t end) {
    const Range own = kernels.range(stretch(values, begin, end));
    const std::lock_guard lock(mutex);
    range = combined(range, own);
  });
  return range;
}

bool exceeds(const at::Tensor& values, const std::optional<Range>& range) {
  return range && values.numel() > 0 && values.abs().max().item<float>() > range->largest;
}

Rounded round_activations(const at::Tensor& values, const NumberFormat& named, const std::optional<Range>& given) {
  const NumberFormat format = for_activations(named);
  if (const auto plain = plain_cast(format)) return round_to(values, *plain);
  TORCH_CHECK(values.scalar_type() == at::kFloat && values.is_cpu(), "round_activations: found ", values.scalar_type(),
              " on ", values.device(), ", expected float32 on the CPU");
  const at::Tensor source = values.contiguous();
  Rounded result{at::empty_like(source), exceeds(source, given)};
  if (source.numel() == 0) return result;
  const std::int64_t length = source.size(-1), samples = source.dim() > 1 ? source.size(0) : 1;
  const std::int64_t rows = source.numel() / samples / length;  // of a sample
  for (std::int64_t sample = 0; sample < samples; ++sample) {
    const std::int64_t offset = sample * rows * length;
    round_one_tensor({source.const_data_ptr<float>() + offset, rows, length, length},
                     result.values.mutable_data_ptr<float>() + offset, format, given);
  }
  return result;
}

at::Tensor round_matrix(const at::Tensor& matrix, const NumberFormat& format) {
  TORCH_CHECK(matrix.dim() == 2 && matrix.scalar_type() == at::kFloat && matrix.is_cpu(), "round_matrix: found ",
              matrix.scalar_type(), " ", matrix.sizes(), ", expected float32 [rows, In]");
  const at::Tensor source = matrix.contiguous();
  at::Tensor result = at::empty_like(source);
  const std::int64_t length = source.size(1);
  round_one_tensor({source.const_data_ptr<float>(), source.size(0), length, length}, result.mutable_data_ptr<float>(),
                   format);
  return result;
}

formats::CodesFrom CodedWeight::operand() const {
  return {codes.const_data_ptr<std::uint8_t>(), scales.defined() ? scales.const_data_ptr<float>() : nullptr,
          zero_points.defined() ? zero_points.const_data_ptr<float>() : nullptr};
}

at::Tensor CodedWeight::values() const {
  at::Tensor result = at::empty({out, in}, at::kFloat);
  auto* const to = result.mutable_data_ptr<float>();
  for_rows(out, in, 1, [&](std::int64_t begin, std::int64_t end) {
    best_scaled_kernels().decode(operand(), format, begin, {to + begin * in, end - begin, in, in});
  });
  return result;
}

CodedWeight encode(const at::Tensor& weight, const NumberFormat& format) {
  const at::Tensor source = weight.contiguous();
  const std::int64_t out = source.size(0), in = source.size(1);
  const formats::CodeLayout layout = layout_of(format, in);
  CodedWeight coded{format, out, in, at::empty({out, layout.row_bytes}, at::kByte), {}, {}};
  if (layout.scales_per_row > 0) coded.scales = at::empty({layout.scale_rows(out), layout.scales_per_row}, at::kFloat);
  if (format.rule == formats::Rule::asymmetric) coded.zero_points = at::empty_like(coded.scales);
  const ScaledKernels& kernels = best_scaled_kernels();
  // Some rows at a time, so that a large weight needs no float32 copy.
  const std::int64_t rows_at_once = std::max<std::int64_t>(1, (1 << 20) / std::max<std::int64_t>(1, in) / 128) * 128;
  const auto for_slices = [&](const auto& work) {
    for (std::int64_t first = 0; first < out; first += rows_at_once) {
      const at::Tensor floats = source.narrow(0, first, std::min(rows_at_once, out - first)).to(at::kFloat);
      work(first, Rows<const float>{floats.const_data_ptr<float>(), floats.size(0), in, in});
    }
  };
  Range range;
  if (needs_range(format)) {
    for_slices(
        [&](std::int64_t, const Rows<const float>& rows) { range = combined(range, range_of(kernels, rows, format)); });
  }
  const formats::CodesTo to{coded.codes.mutable_data_ptr<std::uint8_t>(),
                            coded.scales.defined() ? coded.scales.mutable_data_ptr<float>() : nullptr,
                            coded.zero_points.defined() ? coded.zero_points.mutable_data_ptr<float>() : nullptr};
  for_slices([&](std::int64_t first, const Rows<const float>& rows) {
    for_rows(rows.rows, in, rows_that_share(format), [&](std::int64_t begin, std::int64_t end) {
      kernels.encode(stretch(rows, begin, end), format, range, first + begin, to);
    });
  });
  coded.tensor_scale = tensor_scale_of(format, range);
  return coded;
}

}  // namespace pi0::model
