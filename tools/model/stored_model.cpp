#include "tools/model/stored_model.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

fs::path architecture_file(const model::CheckpointFolder& folder) { return folder.root / "architecture.json"; }

}  // namespace

std::string stored_text(const model::CheckpointFolder& folder, const std::string& key, const std::string& otherwise) {
  if (!folder.config.is_object() || !folder.config.contains(key)) return otherwise;
  const model::Json& value = folder.config.at(key);
  return value.is_string() ? value.get<std::string>() : otherwise;
}

std::int64_t stored_horizon(const model::CheckpointFolder& folder) {
  if (fs::exists(architecture_file(folder))) return model::read_architecture(architecture_file(folder)).action_horizon;
  const char* key = folder.layout == model::Layout::lerobot ? "chunk_size" : "action_horizon";
  if (!folder.config.is_object() || !folder.config.contains(key)) return 0;
  model::JsonFields fields(folder.config, (folder.root / "config.json").string());
  return fields.count(key);
}

model::ModelConfig stored_model(const model::CheckpointFolder& folder, const model::CheckpointSource& checkpoint) {
  if (fs::exists(architecture_file(folder))) return model::read_architecture(architecture_file(folder));
  const model::StoredSizes stored = model::stored_sizes(checkpoint);
  if (!stored.pi05 || !stored.action_dim || !stored.paligemma_width) {
    throw model::CheckpointError(folder.weights.string() +
                                 ": holds no Pi0 or Pi0.5 model; expected tensors action_in_proj, time_mlp_in or "
                                 "action_time_mlp_in, and PaliGemma's token embedding");
  }
  const auto variant = [&](const std::string& key, const std::string& standard) {
    return model::gemma_variant(stored_text(folder, key, standard));
  };
  model::ModelConfig sizes;
  sizes.pi05 = *stored.pi05;
  sizes.paligemma = variant("paligemma_variant", "gemma_2b");
  sizes.action_expert = variant("action_expert_variant", "gemma_300m");
  sizes.vision = model::siglip_so400m();
  if (*stored.paligemma_width != sizes.paligemma.width) {
    throw model::CheckpointError(folder.weights.string() + ": holds a PaliGemma of width " +
                                 std::to_string(*stored.paligemma_width) + ", expected " +
                                 std::to_string(sizes.paligemma.width) +
                                 "; other sizes than openpi's need an architecture.json beside the weights");
  }
  sizes.vocab_size = *stored.vocab_size;
  sizes.action_dim = *stored.action_dim;
  sizes.action_horizon = std::max<std::int64_t>(1, stored_horizon(folder));
  sizes.max_token_len = 1;
  return sizes;
}

}  // namespace pi0::tools
