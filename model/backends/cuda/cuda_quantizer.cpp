#include "model/backends/cuda/cuda_quantizer.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "model/backends/cuda/device_rounding.h"
#include "model/backends/cuda/device_stream.h"
#include "model/backends/linear_result.h"
#include "model/format_dtype.h"

namespace pi0::model {
namespace {

using formats::Format;

static_assert(std::is_trivially_copyable_v<DeviceErrors::Record>);

// A dtype that holds all values of a format and that tensor cores multiply exactly.
at::ScalarType operand_dtype(Format format) {
  return formats::fits_bfloat16(format) ? at::kBFloat16 : dtype_of(format);
}

// rows · weightᵀ in float32, [R, Out].
Tensor product(const Tensor& rows, const Tensor& weight) {
  const at::ScalarType dtype = rows.scalar_type();
  if (rows.is_cuda() && dtype != at::kFloat && dtype == weight.scalar_type())
    return at::mm(rows, weight.t(), at::kFloat);
  return at::mm(rows.to(at::kFloat), weight.to(at::kFloat).t());
}

Tensor float_terms(const Tensor& bias) { return bias.defined() ? bias.to(at::kFloat).contiguous() : bias; }

Format plain_cast_of(const formats::NumberFormat& format, const MatmulSite& site) {
  if (const auto plain = plain_cast(format)) return *plain;
  throw std::invalid_argument(site.path + ": format " + name_of(format) + " is not available on a GPU; found " +
                              "a format with scales or few bits, expected a plain cast (or run with --device cpu)");
}

void refuse_other_sums(const formats::SiteFormats& formats, const MatmulSite& site) {
  const bool has_accumulator = formats.accumulator != formats::Accumulator{};
  if (!has_accumulator && !formats.noise) return;
  throw std::invalid_argument(
      site.path + ": " +
      (has_accumulator ? "accumulator " + name_of(formats.accumulator) : "noise " + name_of(*formats.noise)) +
      " is not available on a GPU; run with --device cpu");
}

const float* terms_of(const Tensor& terms) { return terms.defined() ? terms.const_data_ptr<float>() : nullptr; }

}  // namespace

DeviceErrors::Slot DeviceErrors::slot(std::size_t site, std::int64_t samples, at::Device device) {
  const auto stride = static_cast<std::int64_t>(site_count_ * sizeof(Record));
  const std::int64_t known = records_.defined() ? records_.size(0) : 0;
  if (samples > known) {
    const c10::InferenceMode inference;
    const Tensor more = at::zeros({samples, stride}, at::device(device).dtype(at::kByte));
    if (known > 0) more.narrow(0, 0, known).copy_(records_);
    records_ = more;
    moved_();
  }
  return {static_cast<Record*>(records_.mutable_data_ptr()) + site, stride};
}

void DeviceErrors::collect(ErrorSink& sink, Observe observe) {
  if (!records_.defined()) return;
  const c10::InferenceMode inference;
  const Tensor host = records_.to(at::kCPU, /*non_blocking=*/false, /*copy=*/true);
  records_.zero_();
  const auto* next = static_cast<const Record*>(host.const_data_ptr());
  for (std::size_t sample = 0; sample < static_cast<std::size_t>(host.size(0)); ++sample) {
    for (std::size_t number = 0; number < site_count_; ++number) {
      const Record& record = *next++;
      if (record.input_overflowed != 0) sink.overflowed(number, Operand::input);
      if (record.output_overflowed != 0) sink.overflowed(number, Operand::output);
      if (record.errors.call_count() > 0) observe(number, sample, record.errors);
    }
  }
}

CudaQuantizer::CudaQuantizer(const Backend& backend, const DeviceKernels& kernels, ErrorSink& sink,
                             std::function<void()> moved)
    : ReferenceQuantizer(backend, sink), kernels_(kernels), errors_(std::move(moved)) {}

std::size_t CudaQuantizer::add(const Linear& linear, const formats::SiteFormats& formats,
                               const InputStatistics& statistics) {
  plain_cast_of(formats.weight, linear);
  refuse_other_sums(formats, linear);
  if (formats.methods.any()) {
    throw std::invalid_argument(
        linear.path + ": rotation, smoothing and clipping are not available on a GPU; run with " + "--device cpu");
  }
  const Format input = plain_cast_of(formats.input, linear), output = plain_cast_of(formats.output, linear);
  const std::size_t number = ReferenceQuantizer::add(linear, formats, statistics);
  parts_.push_back({input, output, float_terms(sites_[number].bias_codes), float_terms(linear.bias()), {}});
  errors_.add_site();
  return number;
}

std::size_t CudaQuantizer::add(const Attention& attention, const formats::SiteFormats& formats) {
  refuse_other_sums(formats, attention);
  parts_.push_back({plain_cast_of(formats.input, attention), plain_cast_of(formats.output, attention), {}, {}, {}});
  errors_.add_site();
  return ReferenceQuantizer::add(attention, formats);
}

std::size_t CudaQuantizer::add(const KvCacheSite& cache, const formats::NumberFormat& format) {
  throw std::invalid_argument(cache.path + ": a format of the KV cache, " + name_of(format) +
                              ", is not available on a GPU; run with --device cpu");
}

std::size_t CudaQuantizer::add(const VectorSite& vector, const formats::NumberFormat& format) {
  throw std::invalid_argument(vector.path + ": a format of vector operations, " + name_of(format) +
                              ", is not available on a GPU; run with --device cpu");
}

Tensor CudaQuantizer::rounded(std::span<const std::size_t> sites, const Tensor& values, at::ScalarType stored) {
  std::vector<std::uint32_t*> flags;
  for (const std::size_t site : sites) {
    flags.push_back(&errors_.slot(site, 1, values.device()).first->input_overflowed);
  }
  return round_on_device(kernels_, values, stored, parts_[sites.front()].input, flags);
}

// A bias that rounding changes needs no second product: both biases are added to the same sums.
void CudaQuantizer::collect() {
  errors_.collect(sink_, [this](std::size_t site, std::size_t sample, const formats::ErrorStats& errors) {
    pass(site, sample, errors);
  });
  ReferenceQuantizer::collect();
}

bool CudaQuantizer::has_exact_product(std::size_t number, at::ScalarType dtype) const {
  const Site& site = sites_[number];
  return keeps(parts_[number].input, dtype) &&
         (site.linear == nullptr || site.weight_codes.is_same(site.linear->weight()));
}

const Tensor& CudaQuantizer::wide_weight(std::size_t site) {
  const Tensor& codes = sites_[site].weight_codes;
  if (codes.element_size() > 1) return codes;
  Tensor& wide = parts_[site].wide_weight;
  if (!wide.defined()) {
    const c10::InferenceMode inference;
    wide = codes.to(at::kBFloat16);
  }
  return wide;
}

bool CudaQuantizer::takes_few_rows(std::size_t site, const Tensor& x) const {
  const Linear& linear = *sites_[site].linear;
  const bool samples_apart = mode.measured && mode.samples_apart && x.size(0) > 1;
  const formats::SiteFormats& formats = sites_[site].formats;
  return formats.weight == formats.input && x.scalar_type() == at::kBFloat16 &&
         linear.weight().scalar_type() == at::kBFloat16 && linear.in_features % 8 == 0 &&
         x.numel() <= HookedRowsCall::most_rows * linear.in_features && !samples_apart && linear.calls == 1;
}

// Whether one call of the kernels can do all of them.
bool CudaQuantizer::alike(std::span<const std::size_t> sites, const Tensor& x) const {
  const std::size_t first = sites.front();
  return std::ranges::all_of(sites, [&](std::size_t site) {
    return parts_[site].input == parts_[first].input && takes_few_rows(site, x) == takes_few_rows(first, x) &&
           has_exact_product(site, x.scalar_type()) == has_exact_product(first, x.scalar_type());
  });
}

std::vector<Tensor> CudaQuantizer::linears(std::span<const std::size_t> sites, const Tensor& x) {
  if (alike(sites, x)) return takes_few_rows(sites.front(), x) ? few_rows(sites, x) : many_rows(sites, x);
  std::vector<Tensor> results;
  for (const std::size_t site : sites) results.push_back(linears({&site, 1}, x).front());
  return results;
}

std::vector<Tensor> CudaQuantizer::many_rows(std::span<const std::size_t> sites, const Tensor& x) {
  const c10::DeviceGuard guard(x.device());
  const Tensor rows = x.contiguous();
  const Format input = parts_[sites.front()].input;
  const Tensor operand = keeps(input, x.scalar_type()) ? rows : rounded(sites, rows, operand_dtype(input));
  std::vector<Tensor> results;
  for (const std::size_t site : sites) results.push_back(many_rows(site, rows, operand));
  return results;
}

Tensor CudaQuantizer::many_rows(std::size_t site, const Tensor& x, const Tensor& rounded) {
  const Linear& linear = *sites_[site].linear;
  const auto as_rows = [&](const Tensor& tensor) { return tensor.view({-1, linear.in_features}); };
  const Tensor sums = product(as_rows(rounded), wide_weight(site));
  if (!mode.measured) return finish(site, sums, {}, empty_result(x, linear.out_features));
  const bool is_exact = has_exact_product(site, x.scalar_type());
  return finish(site, sums, is_exact ? sums : product(as_rows(x), linear.weight()),
                empty_result(x, linear.out_features));
}

std::vector<Tensor> CudaQuantizer::few_rows(std::span<const std::size_t> sites, const Tensor& x) {
  const c10::DeviceGuard guard(x.device());
  TORCH_INTERNAL_ASSERT(sites.size() <= HookedRowsCall::most_parts);
  const Tensor rows = x.contiguous();
  const std::int64_t in = x.size(-1);
  HookedRowsCall call{};
  call.rows = static_cast<int>(x.numel() / in);
  call.in = static_cast<int>(in);
  call.x = static_cast<const std::uint16_t*>(rows.const_data_ptr());
  call.input = parts_[sites.front()].input;
  call.compares_exact = mode.measured && !has_exact_product(sites.front(), x.scalar_type());
  std::vector<Tensor> results;
  std::vector<Finish> finishes;  // own the memory of partial sums until the kernel is enqueued
  for (const std::size_t site : sites) {
    const Linear& linear = *sites_[site].linear;
    HookedRowsCall::Part& part = call.parts[call.part_count++];
    part.weight = sites_[site].weight_codes.const_data_ptr();
    part.exact_weight = static_cast<const std::uint16_t*>(linear.weight().const_data_ptr());
    part.out = static_cast<int>(linear.out_features);
    results.push_back(empty_result(x, linear.out_features));
    finishes.push_back(finish_of(site, results.back(), mode.measured, 1, partial_count(call.rows, part.out)));
    part.result = finishes.back().call;
    part.input_overflowed = &errors_.slot(site, 1, x.device()).first->input_overflowed;
  }
  kernels_.multiply_few_rows(call, current_stream(x.device()));
  return results;
}

Tensor CudaQuantizer::round_operand(std::size_t site, const Tensor& operand) {
  return keeps(parts_[site].input, operand.scalar_type()) ? operand
                                                          : rounded({&site, 1}, operand, operand.scalar_type());
}

Tensor CudaQuantizer::round_attended(std::size_t site, const Tensor& attended, const Tensor& exact) {
  const c10::DeviceGuard guard(attended.device());
  const Tensor sums = attended.contiguous();
  return finish(site, sums, exact.defined() ? exact.contiguous() : exact, at::empty_like(sums));
}

CudaQuantizer::Finish CudaQuantizer::finish_of(std::size_t site, const Tensor& result, bool compared,
                                               std::int64_t records, std::int64_t parts) {
  const MatmulSite& module = module_of(site);
  const DeviceErrors::Slot slot = errors_.slot(site, records, result.device());
  const std::int64_t calls = compared ? module.calls : 1;
  Finish finish{};
  ResultCall& call = finish.call;
  call.bias = terms_of(parts_[site].terms);
  call.exact_bias = terms_of(parts_[site].exact_terms);
  call.out = result.mutable_data_ptr();
  call.out_storage = format_of(result.scalar_type());
  call.compare_stored = module.kind == SiteKind::attention;
  call.records = static_cast<int>(records);
  call.calls = static_cast<int>(calls);
  const std::int64_t values = result.numel() / records / calls;
  TORCH_CHECK(values <= std::int64_t{1} << 30, module.path, ": found ", values,
              " results at once, expected at most 2^30; a smaller batch has fewer");
  call.values = static_cast<int>(values);
  call.columns = static_cast<int>(result.size(-1));
  call.format = parts_[site].output;
  call.overflowed = &slot.first->output_overflowed;
  if (!compared) return finish;
  call.errors = &slot.first->errors;
  call.arrived = &slot.first->arrived;
  call.record_stride = slot.stride;
  finish.partial = at::empty({records * calls * parts * part_bytes}, result.options().dtype(at::kByte));
  call.partial = finish.partial.mutable_data_ptr();
  return finish;
}

Tensor CudaQuantizer::finish(std::size_t site, const Tensor& sums, const Tensor& exact, const Tensor& result) {
  const bool compared = exact.defined();
  const std::int64_t calls = compared ? module_of(site).calls : 1;
  TORCH_INTERNAL_ASSERT(result.size(0) % calls == 0);
  const std::int64_t records = compared && mode.samples_apart ? result.size(0) / calls : 1;
  const Finish finish = finish_of(site, result, compared, records, partial_count(result.numel() / records / calls));
  kernels_.finish({.sums = sums.const_data_ptr(),
                   .exact_sums = compared ? exact.const_data_ptr() : nullptr,
                   .in_storage = format_of(sums.scalar_type()),
                   .result = finish.call},
                  current_stream(sums.device()));
  return result;
}

}  // namespace pi0::model
