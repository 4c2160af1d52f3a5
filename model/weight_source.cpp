#include "model/weight_source.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace pi0::model {

Storage storage_of(std::string_view name, Precision precision) {
  constexpr std::array<std::string_view, 5> kept_in_float32 = {
      "vision_tower.vision_model.embeddings.patch_embedding", "vision_tower.vision_model.embeddings.position_embedding",
      "input_layernorm", "post_attention_layernorm", "model.norm"};
  const bool root = !name.starts_with("paligemma_with_expert.");
  if (root || precision == Precision::float32) return {at::kFloat, at::kFloat};
  for (const std::string_view part : kept_in_float32) {
    if (name.find(part) != std::string_view::npos) return {at::kBFloat16, at::kFloat};
  }
  return {at::kBFloat16, at::kBFloat16};
}

at::Tensor ShapeRecorder::load(const std::string& name, at::IntArrayRef shape, Storage storage) {
  parameters_.push_back({name, shape.vec()});
  return at::empty(shape, at::dtype(storage.dtype).device(at::kMeta));
}

void ShapeRecorder::pass_over(const std::string& name, at::IntArrayRef shape) {
  parameters_.push_back({name, shape.vec()});
}

at::Tensor RandomWeights::draw(const std::string& name, at::IntArrayRef shape) const {
  constexpr std::uint64_t fnv_prime = 1099511628211ULL;
  std::uint64_t hash = 14695981039346656037ULL ^ seed_;  // FNV-1a: stable across machines
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * fnv_prime;
  at::Tensor values = at::empty(shape, at::dtype(at::kFloat));
  const at::Tensor flat = values.view({-1});
  // A generator draws on one thread, so each part of a large tensor has its own.
  constexpr std::int64_t part_size = std::int64_t{1} << 22;
  const std::int64_t parts = (flat.numel() + part_size - 1) / part_size;
  at::parallel_for(0, parts, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = begin; part < end; ++part) {
      const std::int64_t first = part * part_size;
      const auto part_seed = hash + static_cast<std::uint64_t>(part) * fnv_prime;
      flat.narrow(0, first, std::min(part_size, flat.numel() - first))
          .normal_(0, 1, at::detail::createCPUGenerator(part_seed));
    }
  });
  double scale = 0.1;
  if (name.find("embed_tokens") != std::string::npos || name.ends_with("lm_head.weight")) {
    scale = 0.05;
  } else if (shape.size() > 1 && name.find("position_embedding") == std::string::npos) {
    const std::int64_t fan_in = values.numel() / shape[0];
    scale = 1.0 / std::sqrt(static_cast<double>(fan_in));
  }
  return values.mul_(scale);
}

at::Tensor RandomWeights::load(const std::string& name, at::IntArrayRef shape, Storage storage) {
  return draw(name, shape).to(storage.rounding).to(storage.dtype);
}

}  // namespace pi0::model
