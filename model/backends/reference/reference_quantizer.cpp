#include "model/backends/reference/reference_quantizer.h"

#include <ATen/Parallel.h>
#include <c10/util/ScopeExit.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "model/attention_by_parts.h"
#include "model/backends/reference/reference_backend.h"
#include "model/ordered_linear.h"

namespace pi0::model {
namespace {

constexpr std::int64_t noise_values_per_task = 1 << 14;

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

Tensor with_noise(const Tensor& values, const formats::Noise& noise, std::uint64_t key) {
  const Tensor result = values.clone(at::MemoryFormat::Contiguous);
  const std::int64_t samples = values.dim() > 1 ? values.size(0) : 1,
                     size = values.numel() / std::max<std::int64_t>(1, samples);
  auto* const data = result.mutable_data_ptr<float>();
  at::parallel_for(0, result.numel(), noise_values_per_task, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end;) {
      const std::int64_t place = i % size, count = std::min(size - place, end - i);
      add_noise(noise, key, place, count, data + i);
      i += count;
    }
  });
  return result;
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
  Site site{&linear, formats, &linear};
  site.noise_key = formats::hash_of(linear.path);
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

std::size_t ReferenceQuantizer::add(const Attention& attention, const formats::SiteFormats& formats) {
  sites_.push_back({&attention, formats});
  sites_.back().noise_key = formats::hash_of(attention.path);
  sites_.back().formats.input.is_static = false;  // calibrations are of linears
  return sites_.size() - 1;
}

std::size_t ReferenceQuantizer::add(const KvCacheSite& cache, const formats::NumberFormat& format) {
  formats::SiteFormats formats;
  formats.kv_cache = format;
  sites_.push_back({&cache, formats});
  return sites_.size() - 1;
}

std::size_t ReferenceQuantizer::add(const VectorSite& vector, const formats::NumberFormat& format) {
  formats::SiteFormats formats;
  formats.vector = format;
  sites_.push_back({&vector, formats});
  return sites_.size() - 1;
}

bool ReferenceQuantizer::has_exact_product(std::size_t number, at::ScalarType dtype) const {
  const Site& site = sites_[number];
  if (!keeps(site.formats.input, dtype)) return false;
  if (site.linear == nullptr) return !orders_attention(site.formats.accumulator);
  return !site.formats.accumulator.is_ordered() && !site.transform.changes_inputs() &&
         site.weight_codes.is_same(site.linear->weight()) && site.bias_codes.is_same(site.linear->bias());
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
  const formats::Accumulator& accumulator = site.formats.accumulator;
  const Tensor weight = site.coded_weight.defined() ? site.coded_weight.values() : widened(site.weight_codes);
  const Tensor bias = widened(site.bias_codes);
  Results results;
  results.accumulated = ordered_linear(accumulator, operand.values, weight, bias);
  results.rounded = round_output(number, results.accumulated);
  if (!mode.measured) return results.rounded.to(x.scalar_type());
  const Linear& linear = *site.linear;
  results.exact = has_exact_product(number, x.scalar_type())
                      ? results.accumulated
                      : plain_linear(exact, widened(linear.weight()), widened(linear.bias()));
  if (!accumulator.is_ordered()) {
    results.of_rounded_operands = results.accumulated;
  } else if (mode.split_errors) {
    const auto used = [&](const Tensor& values) {
      return encodes_operands(accumulator) && values.defined() ? encode_operands(values).to(at::kFloat) : values;
    };
    results.of_rounded_operands = plain_linear(used(operand.values), used(weight), used(bias));
  }
  observe(number, results);
  return results.rounded.to(x.scalar_type());
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
  // The exact result has no rounded softmax either.
  const auto exact_result = [&] {
    AttentionOperands unhooked = exact;
    unhooked.softmax = nullptr;
    return backend_.attention(unhooked);
  };
  const formats::Accumulator& accumulator = sites_[site].formats.accumulator;
  if (!orders_attention(accumulator)) {
    const Tensor attended = backend_.attention(operands);
    Tensor reference;
    if (mode.measured) {
      const bool is_exact = exact.softmax == nullptr && has_exact_product(site, exact.query.scalar_type());
      reference = is_exact ? attended : exact_result();
    }
    return round_attended(site, attended, reference);
  }
  const Tensor attended = attention_by_parts(
      operands, [&](const Tensor& x, const Tensor& weight) { return ordered_product(accumulator, x, weight); });
  Results results;
  results.accumulated = attended.to(at::kFloat);
  const Tensor result = round_output(site, results.accumulated).to(attended.scalar_type());
  if (!mode.measured) return result;
  results.exact = exact_result().to(at::kFloat);
  if (mode.split_errors) {
    mode.measured = false;  // the softmax was observed above
    const auto measures_again = c10::make_scope_exit([this] { mode.measured = true; });
    results.of_rounded_operands = backend_.attention(operands).to(at::kFloat);
  }
  results.rounded = result.to(at::kFloat);
  observe(site, results);
  return result;
}

Tensor ReferenceQuantizer::ordered_product(const formats::Accumulator& accumulator, const Tensor& x,
                                           const Tensor& weight) const {
  return ordered_linear(accumulator, x, weight, {});
}

Tensor ReferenceQuantizer::round_output(std::size_t number, const Tensor& values) {
  const Site& site = sites_[number];
  const Rounded rounded = round_activations(values, site.formats.output);
  note(rounded.overflowed, number, Operand::output);
  return site.formats.noise ? with_noise(rounded.values, *site.formats.noise, site.noise_key) : rounded.values;
}

Tensor ReferenceQuantizer::round_attended(std::size_t site, const Tensor& attended, const Tensor& exact) {
  const Tensor sums = attended.to(at::kFloat);
  const Tensor result = round_output(site, sums).to(attended.scalar_type());
  if (exact.defined()) observe(site, {exact.to(at::kFloat), sums, sums, result.to(at::kFloat)});
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
    const Tensor rounded = at::cat({kept.key, kept.value}, 3).to(at::kFloat);
    observe(site, {at::cat({layer.key, layer.value}, 3).to(at::kFloat), rounded, rounded, rounded});
  }
  return kept;
}

Tensor ReferenceQuantizer::apply(std::size_t site, std::span<const Tensor> exact, VectorOperation operation) {
  const auto round = [&](const Tensor& values, Operand operand) {
    const Rounded rounded = round_activations(values.to(at::kFloat), *sites_[site].formats.vector);
    note(rounded.overflowed, site, operand);
    return rounded.values.to(values.scalar_type());
  };
  std::vector<Tensor> inputs;
  for (const Tensor& input : exact) inputs.push_back(round(input, Operand::input));
  const Tensor computed = operation(inputs), result = round(computed, Operand::output);
  if (mode.measured) {
    const Tensor of_rounded_inputs = computed.to(at::kFloat);
    observe(site, {operation(exact).to(at::kFloat), of_rounded_inputs, of_rounded_inputs, result.to(at::kFloat)});
  }
  return result;
}

void ReferenceQuantizer::note(bool overflowed, std::size_t site, Operand operand) {
  if (overflowed) sink_.overflowed(site, operand);
}

std::int64_t ReferenceQuantizer::part_count(std::size_t site, std::int64_t samples) const {
  return mode.samples_apart ? samples : sites_[site].module->calls;
}

void ReferenceQuantizer::report(std::size_t number, std::int64_t part, std::int64_t parts, const Observed& observed) {
  const std::int64_t parts_of_call = parts / sites_[number].module->calls;
  pass(number, static_cast<std::size_t>(part % parts_of_call), observed);
}

void ReferenceQuantizer::pass(std::size_t number, std::size_t sample, const Observed& observed) {
  std::visit([&](const auto& errors) { sink_.observe(number, sample, errors); }, observed);
  Kept& kept = sites_[number].kept;
  if (kept.is_new) kept.errors.push_back(observed);
}

void ReferenceQuantizer::observe(std::size_t site, const Results& results) {
  const std::int64_t samples = results.exact.size(0), parts = part_count(site, samples);
  for (std::int64_t i = 0; i < parts; ++i) {
    const auto part = [&](const Tensor& values) { return values.narrow(0, i * samples / parts, samples / parts); };
    const Tensor exact = part(results.exact), rounded = part(results.rounded);
    report(site, i, parts, error_of(exact, rounded));
    if (!mode.split_errors) continue;
    const Tensor operands = part(results.of_rounded_operands), accumulated = part(results.accumulated);
    report(site, i, parts,
           formats::ByCause<formats::CallError>{error_of(exact, operands), error_of(operands, accumulated),
                                                error_of(accumulated, rounded)});
  }
}

void ReferenceQuantizer::collect() {
  for (std::size_t number = 0; number < sites_.size(); ++number) {
    Kept& kept = sites_[number].kept;
    const std::int64_t first = std::exchange(kept.is_new, false) ? 1 : 0;
    const std::int64_t samples = std::exchange(kept.samples, 0);
    for (std::int64_t sample = first; sample < samples; ++sample) {
      const auto repeat = [&](const auto& error) { sink_.observe(number, static_cast<std::size_t>(sample), error); };
      for (const Observed& observed : kept.errors) std::visit(repeat, observed);
    }
  }
}

}  // namespace pi0::model
