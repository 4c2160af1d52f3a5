// Sizes of a Pi0 or Pi0.5 model: openpi's variants by name, or those of an architecture.json.
// Knows nothing of robots, normalisation or formats.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace pi0::model {

struct GemmaConfig {
  std::int64_t width = 0;
  std::int64_t depth = 0;
  std::int64_t mlp_dim = 0;
  std::int64_t num_heads = 0;
  std::int64_t num_kv_heads = 0;
  std::int64_t head_dim = 0;
  bool operator==(const GemmaConfig&) const = default;
};

struct VisionConfig {
  std::int64_t width = 0;
  std::int64_t depth = 0;
  std::int64_t mlp_dim = 0;
  std::int64_t num_heads = 0;
  std::int64_t patch_size = 0;  // pixels
  std::int64_t image_size = 0;  // pixels, both sides
  std::int64_t num_patches() const { return (image_size / patch_size) * (image_size / patch_size); }
  bool operator==(const VisionConfig&) const = default;
};

struct ModelConfig {
  bool pi05 = true;
  GemmaConfig paligemma;
  GemmaConfig action_expert;
  VisionConfig vision;
  std::int64_t vocab_size = 0;
  std::int64_t action_dim = 0;      // N: states and actions of robots are padded to it
  std::int64_t action_horizon = 0;  // A
  std::int64_t max_token_len = 0;   // positions of the prompt, padding included
  std::int64_t num_steps = 10;      // default number of denoise steps; --num-steps overrides it
  bool operator==(const ModelConfig&) const = default;
};

// openpi/models/gemma.py get_config: gemma_2b or gemma_300m (the *_lora variants load merged weights
// of the same sizes). Throws std::invalid_argument that lists the known names.
GemmaConfig gemma_variant(std::string_view name);

// The variant without the adapters of a LoRA training: gemma_2b of gemma_2b_lora.
std::string without_lora(const std::string& variant);

// SigLIP So400m/14 at 224 pixels, PaliGemma's vision tower.
VisionConfig siglip_so400m();

// The test models of tests/goldens: the full structure with sizes that run in milliseconds.
ModelConfig tiny_config(bool pi05);

// Reads architecture.json. Unknown, missing or mistyped keys and sizes that contradict each other
// throw std::invalid_argument naming file, key, found and expected.
ModelConfig read_architecture(const std::filesystem::path& file);
std::string architecture_json(const ModelConfig& config);

}  // namespace pi0::model
