#include "model/backends/reference/reference_quantizer.h"

#include <cmath>

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

std::size_t ReferenceQuantizer::add(const Linear& linear, formats::FormatPair formats) {
  const std::size_t number = sites_.size();
  const auto encode = [&](const Tensor& parameter, Operand operand) {
    if (!parameter.defined() || keeps(formats.input, parameter.scalar_type())) return parameter;
    const Rounded codes = round_to_codes(parameter, formats.input);
    note(codes.overflowed, number, operand);
    return codes.values;
  };
  sites_.push_back({formats, &linear, encode(linear.weight(), Operand::weight), encode(linear.bias(), Operand::bias)});
  return number;
}

std::size_t ReferenceQuantizer::add(const Attention&, formats::FormatPair formats) {
  sites_.push_back({formats});
  return sites_.size() - 1;
}

bool ReferenceQuantizer::has_exact_operands(std::size_t number, at::ScalarType dtype) const {
  const Site& site = sites_[number];
  if (!keeps(site.formats.input, dtype)) return false;
  return site.linear == nullptr ||
         (site.weight_codes.is_same(site.linear->weight()) && site.bias_codes.is_same(site.linear->bias()));
}

std::vector<Tensor> ReferenceQuantizer::linears(std::span<const std::size_t> sites, const Tensor& x) {
  std::vector<Tensor> results;
  for (const std::size_t site : sites) results.push_back(linear(site, x));
  return results;
}

Tensor ReferenceQuantizer::linear(std::size_t number, const Tensor& x) {
  const Site& site = sites_[number];
  const Tensor exact = x.to(at::kFloat);
  const Rounded operand = round_to(exact, site.formats.input);
  note(operand.overflowed, number, Operand::input);
  const Tensor sum = plain_linear(operand.values, widened(site.weight_codes), widened(site.bias_codes));  // float32
  const Rounded result = round_to(sum, site.formats.output);
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
  const Rounded rounded = round_to(operand.to(at::kFloat), sites_[site].formats.input);
  note(rounded.overflowed, site, Operand::input);
  return rounded.values.to(operand.scalar_type());
}

const LayerKv& ReferenceQuantizer::rounded_prefix(std::size_t site, const LayerKv& prefix) {
  if (!prefix.rounded) {
    prefix.rounded =
        std::make_shared<const LayerKv>(LayerKv{round_operand(site, prefix.key), round_operand(site, prefix.value)});
  }
  return *prefix.rounded;
}

Tensor ReferenceQuantizer::attention(std::size_t site, const AttentionOperands& exact) {
  AttentionOperands operands = exact;
  for (Tensor* operand : {&operands.query, &operands.key, &operands.value}) *operand = round_operand(site, *operand);
  if (exact.prefix != nullptr) operands.prefix = &rounded_prefix(site, *exact.prefix);
  const Tensor attended = backend_.attention(operands);
  Tensor reference;
  if (mode.measured) {
    reference = has_exact_operands(site, exact.query.scalar_type()) ? attended : backend_.attention(exact);
  }
  return round_attended(site, attended, reference);
}

Tensor ReferenceQuantizer::round_attended(std::size_t site, const Tensor& attended, const Tensor& exact) {
  const Rounded rounded = round_to(attended.to(at::kFloat), sites_[site].formats.output);
  note(rounded.overflowed, site, Operand::output);
  const Tensor result = rounded.values.to(attended.scalar_type());
  if (exact.defined()) observe(site, exact.to(at::kFloat), result.to(at::kFloat));
  return result;
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
