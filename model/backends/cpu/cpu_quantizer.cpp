#include "model/backends/cpu/cpu_quantizer.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>

#include "model/backends/cpu/coded_panels.h"
#include "model/backends/cpu/fast_ordered_linear.h"
#include "model/backends/linear_result.h"
#include "model/ordered_linear.h"

namespace pi0::model {
namespace {

using formats::CallError;
using formats::ErrorSums;
using formats::Format;
using formats::RoundingKernels;

// Error sums of the parts of one call, added to from several threads.
class PartErrors {
 public:
  PartErrors(std::int64_t parts, std::int64_t rows_per_part)
      : values_per_part_(rows_per_part * panel_width), sums_(static_cast<std::size_t>(parts)) {}

  // Rounds a strip in place. Returns the largest magnitude before rounding.
  float round(const RoundingKernels& kernels, float* values, const float* reference, Format format) {
    float largest = 0;
    for (std::size_t part = 0; part < sums_.size(); ++part) {
      const std::int64_t first = static_cast<std::int64_t>(part) * values_per_part_;
      const ErrorSums sums = kernels.round_and_compare(
          {values + first, values_per_part_ / panel_width, panel_width, panel_width}, reference + first, format);
      largest = std::max(largest, sums.largest);
      const std::lock_guard lock(mutex_);
      sums_[part].squares += sums.squares;
      sums_[part].power += sums.power;
      sums_[part].nonfinite += sums.nonfinite;
    }
    return largest;
  }

  std::vector<CallError> errors(std::int64_t columns) const {
    const std::int64_t rows = values_per_part_ / panel_width;
    const auto elements = static_cast<double>(rows * columns);
    std::vector<CallError> errors;
    for (const ErrorSums& sums : sums_) {
      errors.push_back({sums.squares / elements, sums.power / elements, sums.nonfinite});
    }
    return errors;
  }

 private:
  const std::int64_t values_per_part_;  // of a strip, padding included: zeros add nothing
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

// A weight that was rounded from bfloat16 values, in a format of pairs. A plain cast only takes bits away, so that
// bfloat16 still holds its values.
PackedWeight in_bfloat16(PackedWeight weight) {
  if (formats::fits_bfloat16(weight.format())) return weight;
  const Tensor panels = empty_panels(weight.panels.sizes(), weight.panels.options().dtype(at::kBFloat16));
  weight.panels = panels.copy_(weight.panels);
  return weight;
}

}  // namespace

// The rounded and packed forms of one x that were needed so far.
class CpuQuantizer::Inputs {
 public:
  Inputs(CpuQuantizer& quantizer, const Tensor& x) : quantizer_(quantizer), x_(x) {}

  const SharedInput& get(const NumberFormat& format, Lane lane, const OperandTransform& transform = {},
                         const std::optional<formats::Range>& range = {}, bool encoded = false) {
    const auto known = std::ranges::find_if(inputs_, [&](const SharedInput& input) {
      return input.format == format && input.lane == lane && input.transform.has_inputs_of(transform) &&
             input.range == range && input.encoded == encoded;
    });
    if (known != inputs_.end()) return *known;
    const Tensor x = transform.changes_inputs() ? transform.inputs(x_) : x_;
    SharedInput& packed = inputs_.emplace_back(quantizer_.pack(x, format, lane, range, encoded));
    packed.transform = transform;
    packed.range = range;
    packed.encoded = encoded;
    return packed;
  }

 private:
  CpuQuantizer& quantizer_;
  const Tensor& x_;
  std::deque<SharedInput> inputs_;  // references to them stay valid
};

CpuQuantizer::CpuQuantizer(const CpuBackend& backend, ErrorSink& sink)
    : ReferenceQuantizer(backend, sink), gemm_(backend.kernels()), rounding_(rounding_kernels(backend.kernels().set)) {}

std::size_t CpuQuantizer::add(const Attention& attention, const formats::SiteFormats& formats) {
  packed_.emplace_back();
  return ReferenceQuantizer::add(attention, formats);
}

std::size_t CpuQuantizer::add(const KvCacheSite& cache, const NumberFormat& format) {
  packed_.emplace_back();
  return ReferenceQuantizer::add(cache, format);
}

std::size_t CpuQuantizer::add(const VectorSite& vector, const NumberFormat& format) {
  packed_.emplace_back();
  return ReferenceQuantizer::add(vector, format);
}

std::size_t CpuQuantizer::add(const Linear& linear, const formats::SiteFormats& formats,
                              const InputStatistics& statistics) {
  const std::size_t number = sites_.size();
  Site site{&linear, formats, &linear};
  Packed packed;
  packed.exact_weight = packed_weight_of(linear);
  packed.weight = packed.exact_weight;
  packed.exact_fits_pairs = formats::fits_bfloat16(packed.exact_weight.format());
  const bool encodes = encodes_operands(formats.accumulator);
  Tensor dense;
  if (!plain_cast(formats.weight) || formats.methods.any() || formats.input.is_static || encodes) {
    dense = unpack_weight(packed.exact_weight);
    prepare(site, dense, statistics);
    if (site.transform.changes_weights()) dense = site.transform.weight(dense);
  }
  packed.weight_is_exact =
      keeps(formats.weight, linear.weight().scalar_type()) && !site.transform.changes_weights() && !encodes;
  if (!packed.weight_is_exact) packed.weight = rounded_weight(number, site, packed, dense);
  packed.exact_terms = padded_terms(linear.bias(), packed.weight);
  packed.terms = rounded_terms(number, site, packed);
  sites_.push_back(std::move(site));
  packed_.push_back(std::move(packed));
  return number;
}

PackedWeight CpuQuantizer::rounded_weight(std::size_t number, const Site& site, const Packed& packed,
                                          const Tensor& dense) {
  const NumberFormat& format = site.formats.weight;
  const auto plain = plain_cast(format);
  if (encodes_operands(site.formats.accumulator)) {
    const Rounded rounded =
        plain ? round_to(dense.to(at::kFloat), *plain) : Rounded{model::encode(dense, format).values()};
    note(rounded.overflowed, number, Operand::weight);
    return pack_encoded_weight(rounded.values);
  }
  if (!plain) return pack_coded(encode(dense, format));
  if (site.transform.changes_weights()) {
    const Rounded rounded = round_to(dense, *plain);
    note(rounded.overflowed, number, Operand::weight);
    return pack_weight(to_codes(rounded.values, *plain));
  }
  PackedWeight weight = packed.exact_weight;
  weight.panels = site.linear->stored_codes(*plain);
  if (!weight.panels.defined()) {
    RoundedWeight rounded = round_to_codes(rounding_, packed.exact_weight, *plain);
    note(rounded.overflowed, number, Operand::weight);
    weight = std::move(rounded.weight);
  }
  return packed.exact_fits_pairs ? in_bfloat16(std::move(weight)) : weight;
}

Tensor CpuQuantizer::rounded_terms(std::size_t number, const Site& site, const Packed& packed) {
  const Tensor &exact = packed.exact_terms, &bias = site.linear->bias();
  const auto plain = plain_cast(site.formats.weight);
  Tensor terms = exact;
  if (plain && bias.defined() && !keeps(*plain, bias.scalar_type())) {
    terms = at::empty_like(exact);
    const float largest = rounding_.round({exact.const_data_ptr<float>(), 1, terms.numel(), terms.numel()},
                                          terms.mutable_data_ptr<float>(), *plain);
    note(overflows(largest, *plain), number, Operand::bias);
  }
  return encodes_operands(site.formats.accumulator) ? encode_operands(terms).to(at::kFloat) : terms;
}

bool CpuQuantizer::has_exact_product(std::size_t number, at::ScalarType dtype) const {
  const Packed& packed = packed_[number];
  return sites_[number].formats.accumulator == formats::Accumulator{} && packed.weight_is_exact &&
         packed.terms.is_same(packed.exact_terms) && !sites_[number].transform.changes_inputs() &&
         keeps(sites_[number].formats.input, dtype);
}

bool CpuQuantizer::release_exact_weight(std::size_t number) {
  if (sites_[number].linear == nullptr || packed_[number].weight_is_exact) return false;
  packed_[number].exact_weight = {};
  return true;
}

Tensor CpuQuantizer::ordered_product(const formats::Accumulator& accumulator, const Tensor& x,
                                     const Tensor& weight) const {
  return fast_ordered_linear(gemm_, accumulator, x, weight, {});
}

Lane CpuQuantizer::exact_lane_of(std::size_t number, at::ScalarType x) const {
  if (!sites_[number].formats.accumulator.is_ordered()) return lane_of(number, x);
  const bool fits = x == at::kBFloat16 && packed_[number].exact_fits_pairs;
  return gemm_.has_pairs && fits ? Lane::bfloat16_pair : Lane::float32;
}

// The exact product and the rounded one use the same lanes: where rounding changes nothing, their sums must not differ.
// Sums in order are of float32. Plain casts take bits away, so that bfloat16 inputs fit pairs after any.
Lane CpuQuantizer::lane_of(std::size_t number, at::ScalarType x) const {
  if (sites_[number].formats.accumulator.is_ordered()) return Lane::float32;
  const Packed& packed = packed_[number];
  const bool input_fits = !sites_[number].transform.changes_inputs() || fits_pairs(sites_[number].formats.input);
  const bool fits = x == at::kBFloat16 && input_fits &&
                    (packed.weight.coded != nullptr || formats::fits_bfloat16(packed.weight.format())) &&
                    packed.exact_fits_pairs;
  return gemm_.has_pairs && fits ? Lane::bfloat16_pair : Lane::float32;
}

CpuQuantizer::SharedInput CpuQuantizer::pack(const Tensor& x, const NumberFormat& format, Lane lane,
                                             const std::optional<formats::Range>& range, bool encoded) {
  const auto plain = plain_cast(format);
  if (!plain) {
    const ClockScope scope(clock.rounding);
    if (!encoded) return {format, lane, pack_scaled_input(gemm_, x, lane, format, range), exceeds(x, range)};
    const Rounded rounded = round_activations(x.to(at::kFloat), format, range);
    return {format, lane, pack_input(gemm_, rounded.values, lane, formats::encode_operands), rounded.overflowed};
  }
  const bool rounds = !keeps(*plain, x.scalar_type());
  if (!rounds && !encoded) return {format, lane, pack_input(gemm_, x, lane, {}), false};
  std::atomic<bool> overflowed = false;
  PackedInput packed = pack_input(gemm_, x, lane, [&](float* row, std::int64_t count) {
    const ClockScope scope(clock.rounding);
    if (rounds && overflows(rounding_.round({row, 1, count, count}, row, *plain), *plain)) overflowed = true;
    if (encoded) formats::encode_operands(row, count);
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
  const formats::SiteFormats& formats = sites_[number].formats;
  const formats::Accumulator& accumulator = formats.accumulator;
  const bool encodes = encodes_operands(accumulator);
  const SharedInput& rounded = inputs.get(formats.input, lane_of(number, x.scalar_type()), sites_[number].transform,
                                          sites_[number].input_range, encodes);
  note(rounded.overflowed, number, Operand::input);
  Call call;
  const auto add = [&](const Product& product, const Tensor& terms) {
    call.products.push_back(product);
    call.terms.push_back(terms);
  };
  if (encodes) {
    add({rounded.packed, packed.weight, accumulator, packed.terms}, {});
  } else {
    // Without a bias, zeros would make 0 of a -0.
    const bool adds = accumulator == formats::Accumulator{} || sites_[number].linear->bias().defined();
    add({rounded.packed, packed.weight, accumulator}, adds ? packed.terms : Tensor{});
  }
  call.has_exact = mode.measured && !has_exact_product(number, x.scalar_type());
  if (call.has_exact) {
    add({inputs.get({}, exact_lane_of(number, x.scalar_type())).packed, packed.exact_weight}, packed.exact_terms);
  }
  call.has_of_rounded_operands = mode.measured && mode.split_errors && accumulator != formats::Accumulator{};
  if (call.has_of_rounded_operands) add({rounded.packed, packed.weight}, packed.terms);
  Tensor result = empty_result(x, sites_[number].linear->out_features);
  const std::int64_t samples = x.dim() > 1 ? x.size(0) : 1;
  if (plain_cast(formats.output) && !formats.noise && !(mode.measured && mode.split_errors)) {
    finish_strips(number, call, samples, result);
  } else {
    finish_rows(number, call, samples, result);
  }
  return result;
}

void CpuQuantizer::add_biases(const Call& call, const Strip& strip) const {
  for (std::size_t i = 0; i < call.terms.size(); ++i) {
    float* const sums = strip.sums[i];
    if (call.terms[i].defined()) {
      gemm_.add_terms(sums, strip.row_count, call.terms[i].const_data_ptr<float>() + strip.first_column);
    }
    clear_padding(strip, sums);
  }
}

void CpuQuantizer::finish_strips(std::size_t number, const Call& call, std::int64_t samples, Tensor& result) {
  const Format output = *plain_cast(sites_[number].formats.output);
  const std::int64_t parts = part_count(number, samples);
  PartErrors errors(parts, call.products[0].x.rows / parts);
  std::atomic<bool> overflowed = false;
  multiply(
      gemm_, call.products,
      [&](const Strip& strip) {
        float* const y = strip.sums[0];
        add_biases(call, strip);
        const ClockScope scope(mode.measured ? clock.statistics : clock.rounding);
        const float largest = mode.measured
                                  ? errors.round(rounding_, y, strip.sums.back(), output)
                                  : rounding_.round({y, strip.row_count, panel_width, panel_width}, y, output);
        if (overflows(largest, output)) overflowed = true;
      },
      result);
  note(overflowed, number, Operand::output);
  if (!mode.measured) return;
  std::int64_t part = 0;
  for (const CallError& error : errors.errors(result.size(-1))) report(number, part++, parts, error);
}

void CpuQuantizer::finish_rows(std::size_t number, const Call& call, std::int64_t samples, Tensor& result) {
  const std::int64_t rows = call.products[0].x.rows, columns = result.size(-1);
  std::vector<Tensor> sums;  // of each product
  for (std::size_t i = 0; i < call.products.size(); ++i) {
    sums.push_back(at::empty({samples, rows / samples, columns}, at::kFloat));
  }
  multiply(
      gemm_, call.products,
      [&](const Strip& strip) {
        add_biases(call, strip);
        for (std::size_t i = 1; i < sums.size(); ++i) {
          gemm_.store(strip.sums[i], rows, 1, strip.columns, sums[i].mutable_data_ptr<float>() + strip.first_column,
                      columns, /*as_bfloat16=*/false);
        }
      },
      sums[0]);
  const ClockScope scope(mode.measured ? clock.statistics : clock.rounding);
  const Tensor rounded = round_output(number, sums[0]);
  result.copy_(rounded.view(result.sizes()));
  if (!mode.measured) return;
  observe(number,
          {call.has_exact ? sums[1] : sums[0], call.has_of_rounded_operands ? sums.back() : sums[0], sums[0], rounded});
}

}  // namespace pi0::model
