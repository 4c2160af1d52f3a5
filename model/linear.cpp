#include "model/linear.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <stdexcept>

namespace pi0::model {

std::vector<Tensor> LinearHook::linears(std::span<LinearHook* const> hooks, const Tensor& x) {
  std::vector<Tensor> results;
  for (LinearHook* hook : hooks) results.push_back(hook->linear(x));
  return results;
}

Linear::Linear(const BuildContext& context, std::int64_t in, std::int64_t out, Bias bias)
    : HookedSite(context.path, SiteKind::linear, in, out, context.backend), dtype_(context.dtype("weight")) {
  if (backend.packs_weights()) {
    const StoredPanels stored = context.stored_panels("weight", {out, in});
    stored_codes_ = stored.rounded;
    weight_ = register_buffer("packed_weight",
                              stored.exact.defined() ? stored.exact : backend.pack(context.lent("weight", {out, in})));
  } else {
    weight_ = context.parameter(*this, "weight", {out, in});
  }
  if (bias == Bias::present) bias_ = context.parameter(*this, "bias", {out});
}

Tensor Linear::operator()(const Tensor& x) const {
  count_flop(x);
  return hook() != nullptr ? hook()->linear(x) : backend.linear(*this, x);
}

const Tensor& Linear::weight() const {
  if (is_released_) throw std::logic_error(path + ": its weight was released; only hooks can compute it");
  return weight_;
}

void Linear::release_weight() {
  const c10::InferenceMode inference;
  weight_.set_data(at::empty({0}, weight_.options()));  // of the registered tensor too
  is_released_ = true;
}

Tensor Linear::stored_codes(formats::Format format) const { return stored_codes_ ? stored_codes_(format) : Tensor{}; }

void Linear::move_parameters(const Tensor& weight, const Tensor& bias) {
  parameters_["weight"] = weight_ = weight;
  if (bias_.defined()) parameters_["bias"] = bias_ = bias;
}

UnusedHead::UnusedHead(const BuildContext& context, std::int64_t width, std::int64_t vocab_size)
    : MatmulSite(context.path, SiteKind::linear, width, vocab_size, context.backend) {
  context.weights.pass_over(context.path_of("weight"), {vocab_size, width});
}

JoinedLinears::JoinedLinears(std::vector<Linear*> linears)
    : linears_(std::move(linears)), backend_(linears_.front()->backend), joined_(backend_.join(linears_)) {}

bool JoinedLinears::has_hooks() const {
  return std::ranges::any_of(linears_, [](const Linear* linear) { return linear->hook() != nullptr; });
}

std::vector<Tensor> JoinedLinears::hooked(const Tensor& x) const {
  std::vector<LinearHook*> hooks;
  for (const Linear* linear : linears_) {
    if (linear->hook() != nullptr) hooks.push_back(linear->hook());
  }
  if (hooks.size() == linears_.size()) return hooks.front()->linears(hooks, x);
  std::vector<Tensor> results;
  for (const Linear* linear : linears_) {
    results.push_back(linear->hook() != nullptr ? linear->hook()->linear(x) : backend_.linear(*linear, x));
  }
  return results;
}

std::vector<Tensor> JoinedLinears::operator()(const Tensor& x) const {
  for (const Linear* linear : linears_) linear->count_flop(x);
  return has_hooks() ? hooked(x) : backend_.linears(linears_, joined_, x);
}

Tensor JoinedLinears::gated(const Tensor& x) const {
  for (const Linear* linear : linears_) linear->count_flop(x);
  if (!has_hooks()) return backend_.gated_linears(linears_, joined_, x);
  const std::vector<Tensor> both = hooked(x);
  return backend_.gelu(both[0], both[1]);
}

}  // namespace pi0::model
