#include "model/model_config.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

namespace pi0::model {
namespace {

using Json = nlohmann::ordered_json;

// Reads an object's fields by name and, at the end, refuses those nobody asked for.
class FieldReader {
 public:
  FieldReader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) refuse("is " + object.dump() + ", expected an object");
  }

  std::int64_t size(const std::string& key) {
    const Json& value = field(key);
    constexpr std::int64_t max_size = 1 << 24;  // far above any real width, far below overflow
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() < 1 ||
        value.get<std::uint64_t>() > max_size) {
      refuse("'" + key + "' is " + value.dump() + ", expected a positive integer");
    }
    return value.get<std::int64_t>();
  }

  bool flag(const std::string& key) {
    const Json& value = field(key);
    if (!value.is_boolean()) refuse("'" + key + "' is " + value.dump() + ", expected true or false");
    return value.get<bool>();
  }

  bool has(const std::string& key) const { return object_.contains(key); }

  FieldReader object(const std::string& key) { return {field(key), where_ + "." + key}; }

  void finish() const {
    for (const auto& [key, value] : object_.items()) {
      if (!read_.contains(key)) refuse("has the unknown key '" + key + "'");
    }
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw std::invalid_argument(where_ + ": " + what);
  }

 private:
  const Json& field(const std::string& key) {
    if (!object_.contains(key)) refuse("'" + key + "' is missing");
    read_.insert(key);
    return object_[key];
  }

  const Json& object_;
  std::string where_;
  std::set<std::string> read_;
};

GemmaConfig read_gemma(FieldReader fields) {
  GemmaConfig gemma{fields.size("width"),     fields.size("depth"),
                    fields.size("mlp_dim"),   fields.size("num_heads"),
                    fields.size("num_kv_heads"), fields.size("head_dim")};
  fields.finish();
  if (gemma.num_heads % gemma.num_kv_heads != 0) {
    fields.refuse("num_heads is not a multiple of num_kv_heads");
  }
  if (gemma.head_dim % 2 != 0) fields.refuse("head_dim is odd; rotary embedding needs it even");
  return gemma;
}

VisionConfig read_vision(FieldReader fields) {
  VisionConfig vision{fields.size("width"),     fields.size("depth"),
                      fields.size("mlp_dim"),   fields.size("num_heads"),
                      fields.size("patch_size"), fields.size("image_size")};
  fields.finish();
  if (vision.width % vision.num_heads != 0) fields.refuse("width is not a multiple of num_heads");
  if (vision.image_size != 224) fields.refuse("image_size must be 224, the size openpi feeds");
  if (vision.patch_size > vision.image_size) fields.refuse("patch_size is larger than the image");
  return vision;
}

Json gemma_json(const GemmaConfig& gemma) {
  return {{"width", gemma.width},         {"depth", gemma.depth},
          {"mlp_dim", gemma.mlp_dim},     {"num_heads", gemma.num_heads},
          {"num_kv_heads", gemma.num_kv_heads}, {"head_dim", gemma.head_dim}};
}

}  // namespace

GemmaConfig gemma_variant(std::string_view name) {
  if (name == "gemma_2b" || name == "gemma_2b_lora") return {2048, 18, 16384, 8, 1, 256};
  if (name == "gemma_300m" || name == "gemma_300m_lora") return {1024, 18, 4096, 8, 1, 256};
  throw std::invalid_argument("unknown Gemma variant '" + std::string(name) +
                              "'; known: gemma_2b, gemma_2b_lora, gemma_300m, gemma_300m_lora");
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
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw std::invalid_argument(file.string() + ": cannot be opened");
  Json json;
  try {
    json = Json::parse(stream);
  } catch (const Json::exception& error) {
    throw std::invalid_argument(file.string() + ": is not JSON: " + error.what());
  }
  FieldReader fields(json, file.string());
  ModelConfig config;
  config.pi05 = fields.flag("pi05");
  config.paligemma = read_gemma(fields.object("paligemma"));
  config.action_expert = read_gemma(fields.object("action_expert"));
  config.vision = read_vision(fields.object("vision"));
  config.vocab_size = fields.size("vocab_size");
  config.action_dim = fields.size("action_dim");
  config.action_horizon = fields.size("action_horizon");
  config.max_token_len = fields.size("max_token_len");
  if (fields.has("num_steps")) config.num_steps = fields.size("num_steps");
  fields.finish();
  const GemmaConfig &vlm = config.paligemma, &expert = config.action_expert;
  if (vlm.depth != expert.depth || vlm.num_kv_heads != expert.num_kv_heads ||
      vlm.head_dim != expert.head_dim) {
    fields.refuse("paligemma and action_expert differ in depth, num_kv_heads or head_dim; "
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
