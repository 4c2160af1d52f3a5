#include "model/model_config.h"

#include <stdexcept>

#include "model/json_fields.h"

namespace pi0::model {
namespace {

GemmaConfig read_gemma(JsonFields fields) {
  GemmaConfig gemma{fields.count("width"),     fields.count("depth"),        fields.count("mlp_dim"),
                    fields.count("num_heads"), fields.count("num_kv_heads"), fields.count("head_dim")};
  fields.finish();
  if (gemma.num_heads % gemma.num_kv_heads != 0) {
    fields.refuse("num_heads is not a multiple of num_kv_heads");
  }
  if (gemma.head_dim % 2 != 0) fields.refuse("head_dim is odd; rotary embedding needs it even");
  return gemma;
}

VisionConfig read_vision(JsonFields fields) {
  VisionConfig vision{fields.count("width"),     fields.count("depth"),      fields.count("mlp_dim"),
                      fields.count("num_heads"), fields.count("patch_size"), fields.count("image_size")};
  fields.finish();
  if (vision.width % vision.num_heads != 0) fields.refuse("width is not a multiple of num_heads");
  if (vision.image_size != 224) fields.refuse("image_size must be 224, the size openpi feeds");
  if (vision.patch_size > vision.image_size) fields.refuse("patch_size is larger than the image");
  return vision;
}

Json gemma_json(const GemmaConfig& gemma) {
  return {{"width", gemma.width},
          {"depth", gemma.depth},
          {"mlp_dim", gemma.mlp_dim},
          {"num_heads", gemma.num_heads},
          {"num_kv_heads", gemma.num_kv_heads},
          {"head_dim", gemma.head_dim}};
}

}  // namespace

GemmaConfig gemma_variant(std::string_view name) {
  if (name == "gemma_2b" || name == "gemma_2b_lora") return {2048, 18, 16384, 8, 1, 256};
  if (name == "gemma_300m" || name == "gemma_300m_lora") return {1024, 18, 4096, 8, 1, 256};
  throw std::invalid_argument("unknown Gemma variant '" + std::string(name) +
                              "'; known: gemma_2b, gemma_2b_lora, gemma_300m, gemma_300m_lora");
}

std::string without_lora(const std::string& variant) {
  const std::string ending = "_lora";
  return variant.ends_with(ending) ? variant.substr(0, variant.size() - ending.size()) : variant;
}

VisionConfig siglip_so400m() { return {1152, 27, 4304, 16, 14, 224}; }

ModelConfig tiny_config(bool pi05) {
  return {.pi05 = pi05,
          .paligemma = {64, 4, 128, 8, 1, 16},
          .action_expert = {48, 4, 96, 8, 1, 16},
          .vision = {48, 2, 112, 3, 14, 224},
          .vocab_size = 512,
          .action_dim = 32,
          .action_horizon = 15,
          .max_token_len = 200};
}

ModelConfig read_architecture(const std::filesystem::path& file) {
  const Json json = read_json(file);
  JsonFields fields(json, file.string());
  ModelConfig config;
  config.pi05 = fields.flag("pi05");
  config.paligemma = read_gemma(fields.object("paligemma"));
  config.action_expert = read_gemma(fields.object("action_expert"));
  config.vision = read_vision(fields.object("vision"));
  config.vocab_size = fields.count("vocab_size");
  config.action_dim = fields.count("action_dim");
  config.action_horizon = fields.count("action_horizon");
  config.max_token_len = fields.count("max_token_len");
  if (fields.has("num_steps")) config.num_steps = fields.count("num_steps");
  fields.finish();
  const GemmaConfig &vlm = config.paligemma, &expert = config.action_expert;
  if (vlm.depth != expert.depth || vlm.num_kv_heads != expert.num_kv_heads || vlm.head_dim != expert.head_dim) {
    fields.refuse(
        "paligemma and action_expert differ in depth, num_kv_heads or head_dim; "
        "the expert attends to PaliGemma's keys and values layer by layer");
  }
  if (expert.width % 2 != 0) fields.refuse("action_expert.width is odd; the time embedding needs it even");
  if (config.num_steps > 1000) fields.refuse("'num_steps' is above 1000");
  return config;
}

std::string architecture_json(const ModelConfig& config) {
  const VisionConfig& vision = config.vision;
  const Json json = {{"pi05", config.pi05},
                     {"paligemma", gemma_json(config.paligemma)},
                     {"action_expert", gemma_json(config.action_expert)},
                     {"vision",
                      {{"width", vision.width},
                       {"depth", vision.depth},
                       {"mlp_dim", vision.mlp_dim},
                       {"num_heads", vision.num_heads},
                       {"patch_size", vision.patch_size},
                       {"image_size", vision.image_size}}},
                     {"vocab_size", config.vocab_size},
                     {"action_dim", config.action_dim},
                     {"action_horizon", config.action_horizon},
                     {"max_token_len", config.max_token_len},
                     {"num_steps", config.num_steps}};
  return json.dump(1) + "\n";
}

}  // namespace pi0::model
