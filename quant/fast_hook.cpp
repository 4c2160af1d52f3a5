#include "quant/fast_hook.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <stdexcept>

namespace pi0::quant {
namespace {

using model::Lane;
using model::panel_width;
using model::Tensor;

// Error sums of the samples of one call, added to from several threads.
class SampleErrors {
 public:
  SampleErrors(std::int64_t samples, std::int64_t rows_per_sample)
      : values_per_sample_(rows_per_sample * panel_width), sums_(static_cast<std::size_t>(samples)) {}

  // Rounds a strip in place, and returns the largest magnitude before.
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

  void observe(StatsBook& book, std::size_t entry, std::int64_t columns) const {
    const auto elements = static_cast<double>(values_per_sample_ / panel_width * columns);
    for (const ErrorSums& sums : sums_) {
      book.observe(entry, {sums.squares / elements, sums.power / elements, sums.nonfinite});
    }
  }

 private:
  const std::int64_t values_per_sample_;  // of a strip, padding included: zeros add nothing
  std::mutex mutex_;
  std::vector<ErrorSums> sums_;  // guarded by mutex_ while threads add
};

// Infinite inputs make NaN of the padding's zeros.
void clear_padding(const model::Strip& strip, float* values) {
  if (strip.columns == panel_width) return;
  for (std::int64_t row = 0; row < strip.row_count; ++row) {
    std::fill(values + row * panel_width + strip.columns, values + (row + 1) * panel_width, 0.0F);
  }
}

}  // namespace

const PackedInputs::Entry& PackedInputs::get(const model::GemmKernels& gemm, const RoundingKernels& rounding,
                                             const Tensor& x, Format format, Lane lane, HookClock& clock) {
  if (!kept_.empty() && !kept_.front().x.is_same(x)) kept_.clear();
  for (const Kept& kept : kept_) {
    if (kept.format == format && kept.lane == lane) return kept.entry;
  }
  if (keeps(format, x.scalar_type())) {
    kept_.push_back({x, format, lane, {model::pack_input(gemm, x, lane, {})}});
    return kept_.back().entry;
  }
  std::atomic<bool> overflowed = false;
  model::PackedInput packed = model::pack_input(gemm, x, lane, [&](float* row, std::int64_t count) {
    const ClockScope scope(clock.rounding);
    if (overflows(rounding.round({row, 1, count, count}, row, format), format)) overflowed = true;
  });
  kept_.push_back({x, format, lane, {std::move(packed), overflowed}});
  return kept_.back().entry;
}

FastLinearHook::FastLinearHook(model::MatmulSite& site, FormatPair formats, const HookContext& context,
                               std::size_t entry, const RoundingKernels& rounding, PackedInputs& inputs)
    : site_(site),
      formats_(formats),
      context_(context),
      entry_(entry),
      rounding_(rounding),
      inputs_(inputs),
      overflow_(site, context),
      weight_(site.packed),
      weight_is_exact_(keeps(formats.input, site.packed.panels.scalar_type())),
      terms_(model::padded_terms(site.bias, site.packed)),
      exact_terms_(terms_) {
  if (!weight_is_exact_) {
    RoundedWeight rounded = round_to_codes(rounding, site.packed, formats.input);
    overflow_.note(rounded.overflowed, "its weight");
    weight_ = std::move(rounded.weight);
  }
  if (!site.bias.defined() || keeps(formats.input, site.bias.scalar_type())) return;
  terms_ = at::empty_like(exact_terms_);
  const float largest = rounding.round({exact_terms_.const_data_ptr<float>(), 1, terms_.numel(), terms_.numel()},
                                       terms_.mutable_data_ptr<float>(), formats.input);
  overflow_.note(overflows(largest, formats.input), "its bias");
}

// One form for both products: where rounding changes nothing, their sums must not differ either.
Lane FastLinearHook::lane_of(at::ScalarType x) const {
  const bool fits = x == at::kBFloat16 && formats_.input != Format::float16 &&
                    formats::fits_bfloat16(weight_.format()) && formats::fits_bfloat16(site_.packed.format());
  return site_.gemm->has_pairs && fits ? Lane::bfloat16_pair : Lane::float32;
}

Tensor FastLinearHook::linear(const Tensor& x) {
  const at::ScalarType dtype = x.scalar_type();
  const bool measured = context_.measured();
  const bool same_operands = weight_is_exact_ && terms_.is_same(exact_terms_) && keeps(formats_.input, dtype);
  const bool two_products = measured && !same_operands;
  const Lane lane = lane_of(dtype);
  const PackedInputs::Entry rounded = inputs_.get(*site_.gemm, rounding_, x, formats_.input, lane, *context_.clock);
  overflow_.note(rounded.overflowed, "its input");
  std::vector<model::Product> products = {{rounded.input, weight_}};
  PackedInputs::Entry exact;
  if (two_products) {
    exact = inputs_.get(*site_.gemm, rounding_, x, Format::float32, lane, *context_.clock);
    products.push_back({exact.input, site_.packed});
    site_.flop += 2 * x.numel() * site_.out_features;
  }

  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = site_.out_features;
  Tensor result = at::empty(shape, x.options());
  const std::int64_t rows = rounded.input.rows;
  const std::int64_t samples = context_.samples_apart ? x.size(0) : 1;
  SampleErrors errors(samples, rows / samples);
  std::atomic<bool> overflowed = false;
  model::multiply(
      *site_.gemm, products,
      [&](const model::Strip& strip) {
        float* const y = strip.sums[0];
        site_.gemm->add_terms(y, strip.row_count, terms_.const_data_ptr<float>() + strip.first_column);
        clear_padding(strip, y);
        if (two_products) {
          site_.gemm->add_terms(strip.sums[1], strip.row_count,
                                exact_terms_.const_data_ptr<float>() + strip.first_column);
          clear_padding(strip, strip.sums[1]);
        }
        const ClockScope scope(measured ? context_.clock->statistics : context_.clock->rounding);
        const float largest = measured
                                  ? errors.round(rounding_, y, strip.sums.back(), formats_.output)
                                  : rounding_.round({y, strip.row_count, panel_width, panel_width}, y, formats_.output);
        if (overflows(largest, formats_.output)) overflowed = true;
      },
      result);
  overflow_.note(overflowed, "its output");
  if (measured) errors.observe(*context_.book, entry_, site_.out_features);
  return result;
}

Tensor FastLinearHook::attention(const model::AttentionOperands&) {
  throw std::logic_error("FastLinearHook: " + site_.path + " is no attention");
}

}  // namespace pi0::quant
