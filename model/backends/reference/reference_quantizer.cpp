#include "model/backends/reference/reference_quantizer.h"

#include <cmath>
#include <stdexcept>

#include "model/backends/reference/reference_backend.h"

namespace pi0::model {
namespace {

formats::CallError error_of(const Tensor& reference, const Tensor& result) {
  formats::CallError call;
  call.mse = (reference - result).pow(2).mean().item<float>();
  call.reference_power = reference.pow(2).mean().item<float>();
  // Elements that are not finite make the mean so; only then they need counting.
  if (!std::isfinite(call.mse)) {
    call.nonfinite = (reference.isfinite() & ~result.isfinite()).sum().item<std::int64_t>();
  }
  return call;
}

Tensor widened(const Tensor& tensor) { return tensor.defined() ? from_codes(tensor) : tensor; }

}  // namespace

void ReferenceQuantizer::prepare(Site& site, const Tensor& weight, const InputStatistics& statistics) {
  site.transform = OperandTransform(weight, site.formats.methods, statistics);
  if (!site.formats.input.is_static) return;
  if (!statistics.absmax.defined())
    throw std::invalid_argument("a static scale needs a calibration; give --calibration");
  const auto largest = site.transform.inputs(statistics.absmax).max().item<float>();
  site.input_range = formats::Range{-largest, largest};
}

std::size_t ReferenceQuantizer::add(const Linear& linear, const formats::SiteFormats& formats,
                                    const InputStatistics& statistics) {
  const std::size_t number = sites_.size();
  const auto plain = plain_cast(formats.weight);
  const auto as_codes = [&](const Tensor& parameter, Operand operand) {
    if (!parameter.defined() || !plain || keeps(*plain, parameter.scalar_type())) return parameter;
    const Rounded codes = round_to_codes(parameter, *plain);
    note(codes.overflowed, number, operand);
    return codes.values;
  };
  Site site{formats, &linear};
  site.bias_codes = as_codes(linear.bias(), Operand::bias);
  prepare(site, linear.weight(), statistics);
  const Tensor weight = site.transform.changes_weights() ? site.transform.weight(linear.weight()) : linear.weight();
  if (plain) {
    site.weight_codes = as_codes(weight, Operand::weight);
  } else {
    site.coded_weight = encode(weight, formats.weight);
  }
  sites_.push_back(std::move(site));
  return number;
}

std::size_t ReferenceQuantizer::add(const Attention&, const formats::SiteFormats& formats) {
  sites_.push_back({formats});
  sites_.back().formats.input.is_static = false;  // calibrations are of linears
  return sites_.size() - 1;
}

std::size_t ReferenceQuantizer::add(const KvCacheSite&, const formats::NumberFormat& format) {
  formats::SiteFormats formats;
  formats.kv_cache = format;
  sites_.push_back({formats});
  return sites_.size() - 1;
}

bool ReferenceQuantizer::has_exact_operands(std::size_t number, at::ScalarType dtype) const {
  const Site& site = sites_[number];
  if (!keeps(site.formats.input, dtype)) return false;
  if (site.linear == nullptr) return true;
  return !site.transform.changes_inputs() && site.weight_codes.is_same(site.linear->weight()) &&
         site.bias_codes.is_same(site.linear->bias());
}

bool ReferenceQuantizer::release_exact_weight(std::size_t number) {
  const Site& site = sites_[number];
  return site.linear != nullptr && (site.coded_weight.defined() || !site.weight_codes.is_same(site.linear->weight()));
}

std::vector<Tensor> ReferenceQuantizer::linears(std::span<const std::size_t> sites, const Tensor& x) {
  std::vector<Tensor> results;
  for (const std::size_t site : sites) results.push_back(linear(site, x));
  return results;
}

Tensor ReferenceQuantizer::linear(std::size_t number, const Tensor& x) {
  const Site& site = sites_[number];
  const Tensor exact = x.to(at::kFloat);
  const Rounded operand = round_activations(site.transform.inputs(exact), site.formats.input, site.input_range);
  note(operand.overflowed, number, Operand::input);
  const Tensor weight = site.coded_weight.defined() ? site.coded_weight.values() : widened(site.weight_codes);
  const Tensor sum = plain_linear(operand.values, weight, widened(site.bias_codes));  // float32
  const Rounded result = round_activations(sum, site.formats.output);
  note(result.overflowed, number, Operand::output);
  if (mode.measured) {
    const Linear& linear = *site.linear;
    observe(number,
            has_exact_operands(number, x.scalar_type())
                ? sum
                : plain_linear(exact, widened(linear.weight()), widened(linear.bias())),
            result.values);
  }
  return result.values.to(x.scalar_type());
}

Tensor ReferenceQuantizer::round_operand(std::size_t site, const Tensor& operand) {
  const Rounded rounded = round_activations(operand.to(at::kFloat), sites_[site].formats.input);
  note(rounded.overflowed, site, Operand::input);
  return rounded.values.to(operand.scalar_type());
}

// The product with the softmax sums over the keys, so that they share scales. Plain casts have none.
Tensor ReferenceQuantizer::round_value(std::size_t site, const Tensor& value) {
  if (plain_cast(sites_[site].formats.input)) return round_operand(site, value);
  return round_operand(site, value.transpose(2, 3)).transpose(2, 3).contiguous();
}

const LayerKv& ReferenceQuantizer::rounded_prefix(std::size_t site, const LayerKv& prefix) {
  if (!prefix.rounded) {
    prefix.rounded =
        std::make_shared<const LayerKv>(LayerKv{round_operand(site, prefix.key), round_value(site, prefix.value)});
  }
  return *prefix.rounded;
}

Tensor ReferenceQuantizer::attention(std::size_t site, const AttentionOperands& exact) {
  AttentionOperands operands = exact;
  for (Tensor* operand : {&operands.query, &operands.key}) *operand = round_operand(site, *operand);
  operands.value = round_value(site, operands.value);
  if (exact.prefix != nullptr) operands.prefix = &rounded_prefix(site, *exact.prefix);
  const Tensor attended = backend_.attention(operands);
  Tensor reference;
  if (mode.measured) {
    reference = has_exact_operands(site, exact.query.scalar_type()) ? attended : backend_.attention(exact);
  }
  return round_attended(site, attended, reference);
}

Tensor ReferenceQuantizer::round_attended(std::size_t site, const Tensor& attended, const Tensor& exact) {
  const Rounded rounded = round_activations(attended.to(at::kFloat), sites_[site].formats.output);
  note(rounded.overflowed, site, Operand::output);
  const Tensor result = rounded.values.to(attended.scalar_type());
  if (exact.defined()) observe(site, exact.to(at::kFloat), result.to(at::kFloat));
  return result;
}

// Keys and values are one observation.
LayerKv ReferenceQuantizer::keep(std::size_t site, const LayerKv& layer) {
  const formats::NumberFormat& format = *sites_[site].formats.kv_cache;
  const auto round = [&](const Tensor& exact) {
    const Rounded rounded = round_activations(exact.to(at::kFloat), format);
    note(rounded.overflowed, site, Operand::output);
    return rounded.values.to(exact.scalar_type());
  };
  LayerKv kept{round(layer.key), round(layer.value)};
  if (mode.measured) {
    observe(site, at::cat({layer.key, layer.value}, 3).to(at::kFloat),
            at::cat({kept.key, kept.value}, 3).to(at::kFloat));
  }
  return kept;
}

void ReferenceQuantizer::note(bool overflowed, std::size_t site, Operand operand) {
  if (overflowed) sink_.overflowed(site, operand);
}

void ReferenceQuantizer::observe(std::size_t site, const Tensor& reference, const Tensor& result) {
  if (!mode.samples_apart) return sink_.observe(site, 0, error_of(reference, result));
  for (std::int64_t i = 0; i < result.size(0); ++i) {
    sink_.observe(site, static_cast<std::size_t>(i), error_of(reference[i], result[i]));
  }
}

}  // namespace pi0::model
