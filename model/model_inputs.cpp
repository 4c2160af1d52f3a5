#include "model/model_inputs.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace pi0::model {
namespace {

void check(const Tensor& tensor, const std::string& name, at::IntArrayRef shape, bool right_dtype, const char* dtype) {
  if (tensor.defined() && tensor.sizes() == shape && right_dtype) return;
  throw std::invalid_argument(tensor.defined() ? c10::str(name, ": found ", tensor.scalar_type(), " ", tensor.sizes(),
                                                          ", expected ", dtype, " ", shape)
                                               : c10::str(name, ": missing, expected ", dtype, " ", shape));
}

}  // namespace

bool is_pixels(const Tensor& image) { return image.defined() && image.scalar_type() == at::kByte; }

Tensor image_to_input(const Tensor& pixels) {
  // A tensor: for a scalar divisor, LibTorch multiplies by the reciprocal on a GPU, which changes the last bit.
  const Tensor divisor = at::full({}, 255.0, pixels.options().dtype(at::kFloat));
  return pixels.to(at::kFloat).permute({0, 3, 1, 2}) / divisor * 2.0 - 1.0;
}

ModelInputs joined(std::span<const ModelInputs> samples) {
  if (samples.size() == 1) return samples.front();
  const auto join = [&](const auto& part) {
    std::vector<Tensor> parts;
    for (const ModelInputs& sample : samples) parts.push_back(part(sample));
    return at::cat(parts);
  };
  ModelInputs batch;
  for (std::size_t i = 0; i < samples.front().images.size(); ++i) {
    batch.images.push_back(join([i](const ModelInputs& s) { return s.images[i]; }));
    batch.image_masks.push_back(join([i](const ModelInputs& s) { return s.image_masks[i]; }));
  }
  batch.tokens = join([](const ModelInputs& s) { return s.tokens; });
  batch.token_mask = join([](const ModelInputs& s) { return s.token_mask; });
  batch.state = join([](const ModelInputs& s) { return s.state; });
  const auto continues = [](const ModelInputs& s) { return s.continuation.is_defined(); };
  if (const auto one = std::ranges::find_if(samples, continues); one != samples.end()) {
    const auto join_part = [&](Tensor Continuation::*part) {
      const Tensor none = at::zeros_like(one->continuation.*part);
      return join([&](const ModelInputs& s) { return continues(s) ? s.continuation.*part : none; });
    };
    batch.continuation = {join_part(&Continuation::target), join_part(&Continuation::weights),
                          join_part(&Continuation::held)};
  }
  return batch;
}

std::int64_t used_positions(const Tensor& token_mask) {
  const Tensor used = token_mask.any(0).nonzero();  // [count, 1]
  return used.size(0) == 0 ? 1 : used[-1].item<std::int64_t>() + 1;
}

void check_inputs(const ModelInputs& in, const Tensor& noise, const ModelConfig& config) {
  const std::int64_t batch = noise.defined() && noise.dim() > 0 ? noise.size(0) : 1;
  const std::int64_t size = config.vision.image_size;
  check(noise, "noise", {batch, config.action_horizon, config.action_dim},
        noise.defined() && noise.scalar_type() == at::kFloat, "float32");
  if (in.images.empty() || in.images.size() != in.image_masks.size()) {
    throw std::invalid_argument(c10::str("images: found ", in.images.size(), " and ", in.image_masks.size(),
                                         " masks, expected the same number of both"));
  }
  for (std::size_t i = 0; i < in.images.size(); ++i) {
    const Tensor &image = in.images[i], &mask = in.image_masks[i];
    if (!is_pixels(image) || image.sizes() != at::IntArrayRef{batch, size, size, 3}) {
      check(image, c10::str("image ", i), {batch, 3, size, size}, image.defined() && image.scalar_type() == at::kFloat,
            "float32");
    }
    check(mask, c10::str("image mask ", i), {batch}, mask.defined() && mask.scalar_type() == at::kBool, "bool");
  }
  const std::int64_t positions = in.tokens.defined() && in.tokens.dim() == 2 ? in.tokens.size(1) : 1;
  check(in.tokens, "tokens", {batch, positions},
        in.tokens.defined() && at::isIntegralType(in.tokens.scalar_type(), false), "integer");
  check(in.token_mask, "token_mask", {batch, positions},
        in.token_mask.defined() && in.token_mask.scalar_type() == at::kBool, "bool");
  check(in.state, "state", {batch, config.action_dim}, in.state.defined() && in.state.is_floating_point(), "floating");
  if (in.continuation.is_defined()) {
    const auto& [target, weights, held] = in.continuation;
    check(target, "continuation target", noise.sizes(), target.scalar_type() == at::kFloat, "float32");
    const std::vector<std::int64_t> of_actions = {batch, config.action_horizon, 1};
    check(weights, "continuation weights", of_actions, weights.defined() && weights.scalar_type() == at::kFloat,
          "float32");
    check(held, "continuation held", of_actions, held.defined() && held.scalar_type() == at::kBool, "bool");
  }
  const Tensor bad = (in.tokens < 0) | (in.tokens >= config.vocab_size);
  if (bad.any().item<bool>()) {
    throw std::invalid_argument(c10::str("tokens: found ", in.tokens.masked_select(bad)[0].item<std::int64_t>(),
                                         ", expected 0 to ", config.vocab_size - 1));
  }
}

}  // namespace pi0::model
