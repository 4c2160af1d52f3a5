#include "model/backends/cpu/cpu_quantizer.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>

#include "model/backends/linear_result.h"

namespace pi0::model {
namespace {

using formats::CallError;
using formats::ErrorSums;
using formats::Format;
using formats::RoundingKernels;

// Error sums of the samples of one call, added to from several threads.
class SampleErrors {
 public:
  SampleErrors(std::int64_t samples, std::int64_t rows_per_sample)
      : values_per_sample_(rows_per_sample * panel_width), sums_(static_cast<std::size_t>(samples)) {}

  // Rounds a strip in place. Returns the largest magnitude before rounding.
  float round(const RoundingKernels& kernels, float* values, const float* reference, Format format) {
    float largest = 0;
    for (std::size_t sample = 0; sample < sums_.size(); ++sample) {
      const std::int64_t first = static_cast<std::int64_t>(sample) * values_per_sample_;
      const ErrorSums sums = kernels.round_and_compare(
          {values + first, values_per_sample_ / panel_width, panel_width, panel_width}, reference + first, format);
      largest = std::max(largest, sums.largest);
      const std::lock_guard lock(mutex_);
      sums_[sample].squares += sums.squares;
      sums_[sample].power += sums.power;
      sums_[sample].nonfinite += sums.nonfinite;
    }
    return largest;
  }

  void report(ErrorSink& sink, std::size_t site, std::int64_t columns) const {
    const std::int64_t rows = values_per_sample_ / panel_width;
    const auto elements = static_cast<double>(rows * columns);
    for (std::size_t sample = 0; sample < sums_.size(); ++sample) {
      const ErrorSums& sums = sums_[sample];
      sink.observe(site, sample, CallError{sums.squares / elements, sums.power / elements, sums.nonfinite});
    }
  }

 private:
  const std::int64_t values_per_sample_;  // of a strip, padding included: zeros add nothing
  std::mutex mutex_;
  std::vector<ErrorSums> sums_;  // guarded by mutex_ while threads add
};

// The padding's zero weights times infinite inputs are NaN, which must not count as errors.
void clear_padding(const Strip& strip, float* values) {
  if (strip.columns == panel_width) return;
  for (std::int64_t row = 0; row < strip.row_count; ++row) {
    std::fill(values + row * panel_width + strip.columns, values + (row + 1) * panel_width, 0.0F);
  }
}

}  // namespace

// The rounded and packed forms of one x that were needed so far.
class CpuQuantizer::Inputs {
 public:
  Inputs(CpuQuantizer& quantizer, const Tensor& x) : quantizer_(quantizer), x_(x) {}

  const SharedInput& get(Format format, Lane lane) {
    const auto known = std::ranges::find_if(
        inputs_, [&](const SharedInput& input) { return input.format == format && input.lane == lane; });
    return known != inputs_.end() ? *known : inputs_.emplace_back(quantizer_.pack(x_, format, lane));
  }

 private:
  CpuQuantizer& quantizer_;
  const Tensor& x_;
  std::deque<SharedInput> inputs_;  // references to them stay valid
};

CpuQuantizer::CpuQuantizer(const CpuBackend& backend, ErrorSink& sink)
    : ReferenceQuantizer(backend, sink), gemm_(backend.kernels()), rounding_(rounding_kernels(backend.kernels().set)) {}

std::size_t CpuQuantizer::add(const Attention& attention, formats::FormatPair formats) {
  packed_.emplace_back();
  return ReferenceQuantizer::add(attention, formats);
}

std::size_t CpuQuantizer::add(const Linear& linear, formats::FormatPair formats) {
  const std::size_t number = sites_.size();
  sites_.push_back({formats, &linear});
  Packed packed;
  packed.exact_weight = packed_weight_of(linear);
  packed.weight = packed.exact_weight;
  packed.weight_is_exact = keeps(formats.input, linear.weight().scalar_type());
  if (!packed.weight_is_exact) {
    RoundedWeight rounded = round_to_codes(rounding_, packed.exact_weight, formats.input);
    note(rounded.overflowed, number, Operand::weight);
    packed.weight = std::move(rounded.weight);
  }
  packed.terms = packed.exact_terms = padded_terms(linear.bias(), packed.weight);
  if (linear.bias().defined() && !keeps(formats.input, linear.bias().scalar_type())) {
    packed.terms = at::empty_like(packed.exact_terms);
    const float largest =
        rounding_.round({packed.exact_terms.const_data_ptr<float>(), 1, packed.terms.numel(), packed.terms.numel()},
                        packed.terms.mutable_data_ptr<float>(), formats.input);
    note(overflows(largest, formats.input), number, Operand::bias);
  }
  packed_.push_back(std::move(packed));
  return number;
}

bool CpuQuantizer::has_exact_operands(std::size_t number, at::ScalarType dtype) const {
  const Packed& packed = packed_[number];
  return packed.weight_is_exact && packed.terms.is_same(packed.exact_terms) &&
         keeps(sites_[number].formats.input, dtype);
}

// The exact product and the rounded one use the same lanes: where rounding changes nothing, their sums must not differ.
Lane CpuQuantizer::lane_of(std::size_t number, at::ScalarType x) const {
  const Packed& packed = packed_[number];
  const bool fits = x == at::kBFloat16 && sites_[number].formats.input != Format::float16 &&
                    fits_bfloat16(packed.weight.format()) && fits_bfloat16(packed.exact_weight.format());
  return gemm_.has_pairs && fits ? Lane::bfloat16_pair : Lane::float32;
}

CpuQuantizer::SharedInput CpuQuantizer::pack(const Tensor& x, Format format, Lane lane) {
  if (keeps(format, x.scalar_type())) return {format, lane, pack_input(gemm_, x, lane, {}), false};
  std::atomic<bool> overflowed = false;
  PackedInput packed = pack_input(gemm_, x, lane, [&](float* row, std::int64_t count) {
    const ClockScope scope(clock.rounding);
    if (overflows(rounding_.round({row, 1, count, count}, row, format), format)) overflowed = true;
  });
  return {format, lane, std::move(packed), overflowed};
}

std::vector<Tensor> CpuQuantizer::linears(std::span<const std::size_t> sites, const Tensor& x) {
  Inputs inputs(*this, x);
  std::vector<Tensor> results;
  for (const std::size_t site : sites) results.push_back(linear(site, x, inputs));
  return results;
}

Tensor CpuQuantizer::linear(std::size_t number, const Tensor& x, Inputs& inputs) {
  const Packed& packed = packed_[number];
  const formats::FormatPair formats = sites_[number].formats;
  const std::int64_t out_features = sites_[number].linear->out_features;
  const Lane lane = lane_of(number, x.scalar_type());
  const SharedInput& rounded = inputs.get(formats.input, lane);
  note(rounded.overflowed, number, Operand::input);
  std::vector<Product> products = {{rounded.packed, packed.weight}};
  const bool two_products = mode.measured && !has_exact_operands(number, x.scalar_type());
  if (two_products) products.push_back({inputs.get(Format::float32, lane).packed, packed.exact_weight});

  Tensor result = empty_result(x, out_features);
  const std::int64_t rows = rounded.packed.rows;
  const std::int64_t samples = mode.samples_apart ? x.size(0) : 1;
  SampleErrors errors(samples, rows / samples);
  std::atomic<bool> overflowed = false;
  const auto finish = [&](const Strip& strip) {
    float* const y = strip.sums[0];
    gemm_.add_terms(y, strip.row_count, packed.terms.const_data_ptr<float>() + strip.first_column);
    clear_padding(strip, y);
    if (two_products) {
      gemm_.add_terms(strip.sums[1], strip.row_count, packed.exact_terms.const_data_ptr<float>() + strip.first_column);
      clear_padding(strip, strip.sums[1]);
    }
    const ClockScope scope(mode.measured ? clock.statistics : clock.rounding);
    const float largest = mode.measured
                              ? errors.round(rounding_, y, strip.sums.back(), formats.output)
                              : rounding_.round({y, strip.row_count, panel_width, panel_width}, y, formats.output);
    if (overflows(largest, formats.output)) overflowed = true;
  };
  multiply(gemm_, products, finish, result);
  note(overflowed, number, Operand::output);
  if (mode.measured) errors.report(sink_, number, out_features);
  return result;
}

}  // namespace pi0::model
