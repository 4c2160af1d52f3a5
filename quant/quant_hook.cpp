#include "quant/quant_hook.h"

#include <cmath>

#include "model/attention.h"
#include "model/backend.h"
#include "model/linear.h"

namespace pi0::quant {
namespace {

using model::Tensor;

CallError error_of(const Tensor& reference, const Tensor& result) {
  CallError call;
  call.mse = (reference - result).pow(2).mean().item<float>();
  call.reference_power = reference.pow(2).mean().item<float>();
  // Only an error that is not finite can come from elements that are not.
  if (!std::isfinite(call.mse)) {
    call.nonfinite = (reference.isfinite() & ~result.isfinite()).sum().item<std::int64_t>();
  }
  return call;
}

Tensor widened(const Tensor& tensor) { return tensor.defined() ? from_codes(tensor) : tensor; }

}  // namespace

QuantHook::QuantHook(model::MatmulSite& site, FormatPair formats, const HookContext& context, std::size_t entry)
    : site_(site), formats_(formats), context_(context), overflow_(site, context), entry_(entry) {
  const auto encode = [&](const Tensor& parameter, const char* what) {
    if (!parameter.defined() || keeps(formats_.input, parameter.scalar_type())) {
      return parameter;
    }
    const Rounded codes = round_to_codes(parameter, formats_.input);
    overflow_.note(codes.overflowed, what);
    return codes.values;
  };
  weight_codes_ = encode(site.weight, "its weight");
  bias_codes_ = encode(site.bias, "its bias");
}

Tensor QuantHook::linear(const Tensor& operand) {
  const model::LinearOperands exact{operand.to(at::kFloat), site_.weight, site_.bias};
  const Rounded x = round_to(exact.x, formats_.input);
  overflow_.note(x.overflowed, "its input");
  const Tensor sum = model::plain_linear({x.values, widened(weight_codes_), widened(bias_codes_)});  // float32
  const Rounded y = round_to(sum, formats_.output);
  overflow_.note(y.overflowed, "its output");
  if (context_.measured()) {
    const bool same_operands = keeps(formats_.input, operand.scalar_type()) && weight_codes_.is_same(site_.weight) &&
                               bias_codes_.is_same(site_.bias);
    Tensor reference = sum;
    if (!same_operands) {
      site_.flop += 2 * operand.numel() * site_.out_features;
      reference = model::plain_linear({exact.x, widened(site_.weight), widened(site_.bias)});
    }
    observe(reference, y.values);
  }
  return y.values.to(operand.scalar_type());
}

Tensor QuantHook::round_operand(const Tensor& operand) {
  const Rounded rounded = round_to(operand.to(at::kFloat), formats_.input);
  overflow_.note(rounded.overflowed, "its input");
  return rounded.values.to(operand.scalar_type());
}

void QuantHook::round_prefix(model::AttentionOperands& operands) {
  if (!operands.prefix_key.defined()) return;
  if (!prefix_.exact_key.is_same(operands.prefix_key)) {
    prefix_.exact_key = operands.prefix_key;
    prefix_.key = round_operand(operands.prefix_key);
    prefix_.value = round_operand(operands.prefix_value);
  }
  operands.prefix_key = prefix_.key;
  operands.prefix_value = prefix_.value;
  operands.prefix_pack = &prefix_.pack;
}

Tensor QuantHook::attention(const model::AttentionOperands& exact) {
  model::AttentionOperands operands = exact;
  for (Tensor* operand : {&operands.query, &operands.key, &operands.value}) {
    *operand = round_operand(*operand);
  }
  round_prefix(operands);
  const Tensor attended = site_.backend->attention(operands);
  Tensor reference;
  if (context_.measured()) {
    reference = attended;
    if (!keeps(formats_.input, exact.query.scalar_type())) {
      site_.flop += model::attention_flop(exact);
      reference = site_.backend->attention(exact);
    }
  }
  return settle_attention(attended, reference);
}

Tensor QuantHook::settle_attention(const Tensor& attended, const Tensor& reference) {
  const Rounded y = round_to(attended.to(at::kFloat), formats_.output);
  overflow_.note(y.overflowed, "its output");
  const Tensor result = y.values.to(attended.scalar_type());
  if (reference.defined()) observe(reference.to(at::kFloat), result.to(at::kFloat));
  return result;
}

void QuantHook::observe(const Tensor& reference, const Tensor& result) {
  if (!context_.samples_apart) {
    context_.book->observe(entry_, error_of(reference, result));
    return;
  }
  for (std::int64_t i = 0; i < result.size(0); ++i) {
    context_.book->observe(entry_, error_of(reference[i], result[i]));
  }
}

void OverflowNote::note(bool overflowed, const char* what) {
  if (!overflowed || warned_) return;
  warned_ = true;
  if (context_.warn) context_.warn(site_.path + ": a format overflowed in " + what);
}

}  // namespace pi0::quant
