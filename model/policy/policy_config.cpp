#include "model/policy/policy_config.h"

#include <algorithm>
#include <initializer_list>
#include <set>
#include <utility>

#include "model/json_fields.h"
#include "model/nearest_name.h"
#include "model/policy/builtin_configs.h"

namespace pi0::policy {
namespace {

using model::Json;
using model::JsonFields;

constexpr std::int64_t paligemma_vocab_size = 257152;

// openpi's configs whose model is a Pi0FASTConfig.
const std::set<std::string> autoregressive_policies = {
    "pi0_fast_droid",
    "pi0_fast_libero",
    "pi0_fast_libero_low_mem_finetune",
    "pi0_fast_full_droid_finetune",
    "pi0_fast_droid_jointpos_polaris",
    "paligemma_binning_droid",
    "paligemma_fast_droid",
    "paligemma_fast_specialist_droid",
    "paligemma_vq_droid",
};

protocol::Value as_value(const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return json.get<std::int64_t>();
    case Json::value_t::number_unsigned: {
      const auto number = json.get<std::uint64_t>();
      if (number > static_cast<std::uint64_t>(INT64_MAX)) return number;
      return static_cast<std::int64_t>(number);
    }
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string:
      return json.get<std::string>();
    case Json::value_t::array: {
      protocol::List list;
      for (const Json& item : json) list.items.push_back(as_value(item));
      return list;
    }
    case Json::value_t::object: {
      protocol::Dict dict;
      for (const auto& [key, value] : json.items()) dict.set(key, as_value(value));
      return dict;
    }
    default:
      return std::monostate{};
  }
}

// One of several words, each with its value.
template <class Value>
Value read_word(JsonFields& fields, const std::string& key,
                std::initializer_list<std::pair<const char*, Value>> words) {
  const std::string found = fields.text(key);
  std::string expected;
  for (const auto& [word, value] : words) {
    if (found == word) return value;
    expected += (expected.empty() ? "\"" : " or \"") + std::string(word) + "\"";
  }
  fields.mistyped(key, expected);
}

Normalization read_normalization(JsonFields& fields) {
  return read_word<Normalization>(fields, "normalization",
                                  {{"quantile", Normalization::quantile},
                                   {"z_score", Normalization::z_score},
                                   {"lerobot_quantile", Normalization::lerobot_quantile},
                                   {"lerobot_z_score", Normalization::lerobot_z_score}});
}

// What LeRobot's policies do otherwise than openpi's, and one version of it otherwise than another.
void read_differences(JsonFields& fields, PolicyConfig& policy) {
  if (fields.has("resize")) {
    policy.resize = read_word<Resize>(fields, "resize", {{"pillow", Resize::pillow}, {"lerobot", Resize::lerobot}});
  }
  if (fields.has("padding_value")) {
    if (!fields.value("padding_value").is_number()) fields.mistyped("padding_value", "a number");
    policy.padding.value = fields.value("padding_value").get<double>();
  }
  if (fields.has("padding_place")) {
    policy.padding.place = read_word<Padding::Place>(
        fields, "padding_place", {{"around", Padding::Place::around}, {"left_top", Padding::Place::left_top}});
  }
  if (fields.has("clean_prompt")) policy.clean_prompt = fields.flag("clean_prompt");
  if (fields.has("padded_state_in_prompt")) policy.padded_state_in_prompt = fields.flag("padded_state_in_prompt");
  if (policy.resize != Resize::lerobot && (fields.has("padding_value") || fields.has("padding_place"))) {
    fields.refuse("'padding_value' and 'padding_place' need 'resize' to be \"lerobot\"");
  }
  if (!policy.clean_prompt && policy.discrete_state_input) {
    fields.refuse("'clean_prompt' is false, but a prompt with 'discrete_state_input' is always cleaned");
  }
  if (policy.padded_state_in_prompt && !policy.discrete_state_input) {
    fields.refuse("'padded_state_in_prompt' needs 'discrete_state_input'");
  }
}

std::string read_variant(JsonFields& fields, const std::string& key) {
  std::string variant = fields.text(key);
  try {
    model::gemma_variant(variant);
  } catch (const std::invalid_argument& error) {
    fields.refuse("'" + key + "': " + error.what());
  }
  return variant;
}

// The name of a built-in robot, or the definition of another one.
RobotConfig read_robot_field(JsonFields& fields) {
  if (fields.value("robot").is_object()) return read_robot(fields.object("robot"));
  try {
    return robot_config(fields.text("robot"));
  } catch (const model::JsonFileError& error) {
    fields.refuse(std::string("'robot': ") + error.what());
  }
}

protocol::Dict read_metadata(JsonFields& fields) {
  if (!fields.value("metadata").is_object()) fields.mistyped("metadata", "an object");
  return std::get<protocol::Dict>(as_value(fields.value("metadata")));
}

PolicyConfig read_policy(const std::string& name, const Json& json, const std::string& source) {
  JsonFields fields(json, source);
  PolicyConfig policy;
  policy.name = name;
  policy.pi05 = fields.flag("pi05");
  policy.paligemma_variant = read_variant(fields, "paligemma_variant");
  policy.action_expert_variant = read_variant(fields, "action_expert_variant");
  policy.action_dim = fields.count("action_dim");
  policy.action_horizon = fields.count("action_horizon");
  policy.max_token_len = fields.count("max_token_len");
  policy.discrete_state_input = fields.flag("discrete_state_input");
  policy.asset_id = fields.text("asset_id");
  policy.normalization = read_normalization(fields);
  read_differences(fields, policy);
  policy.robot = read_robot_field(fields);
  if (fields.has("delta_action_mask")) policy.delta_action_mask = fields.flags("delta_action_mask");
  if (fields.has("default_prompt")) policy.default_prompt = fields.text("default_prompt");
  if (fields.has("metadata")) policy.metadata = read_metadata(fields);
  fields.finish();

  const RobotConfig& robot = policy.robot;
  if (policy.action_dim < std::max(robot.state_size(), robot.action_size)) {
    fields.refuse("'action_dim' is " + std::to_string(policy.action_dim) + ", too small for the robot's state of " +
                  std::to_string(robot.state_size()) + " numbers and action of " + std::to_string(robot.action_size));
  }
  if (policy.delta_action_mask.size() > static_cast<std::size_t>(policy.action_dim)) {
    fields.refuse("'delta_action_mask' is longer than 'action_dim'");
  }
  if (policy.discrete_state_input && !policy.pi05) {
    fields.refuse("'discrete_state_input' is true, which only a Pi0.5 model was trained with");
  }
  return policy;
}

std::string text_of(bool value) { return value ? "true" : "false"; }

void check_same(const PolicyConfig& policy, const std::string& source, const std::string& key, const std::string& found,
                const std::string& expected) {
  if (found == expected) return;
  throw PolicyConfigError(source + ": '" + key + "' is " + found + ", config " + policy.name + " says " + expected +
                          "; is this checkpoint of another config?");
}

}  // namespace

PolicyConfig policy_config(const std::string& name) {
  const auto found = builtin_policies().find(name);
  if (found == builtin_policies().end()) {
    if (autoregressive_policies.contains(name)) {
      throw PolicyConfigError("config '" + name +
                              "' is an autoregressive policy of openpi: it generates action tokens one after the "
                              "other, which is not supported; expected a flow-matching policy (Pi0 or Pi0.5)");
    }
    std::string known;
    for (const std::string& policy : policy_names()) known += (known.empty() ? "" : ", ") + policy;
    throw PolicyConfigError("unknown config '" + name + "'; known: " + known +
                            model::did_you_mean(name, policy_names()));
  }
  const std::string source = "config " + name;
  return read_policy(name, model::parse_json(found->second, source), source);
}

std::vector<std::string> policy_names() {
  std::vector<std::string> names;
  for (const auto& [name, text] : builtin_policies()) names.push_back(name);
  return names;
}

PolicyConfig read_policy_config(const std::filesystem::path& file) {
  try {
    return read_policy(file.stem().string(), model::read_json(file), file.string());
  } catch (const model::JsonFileError& error) {
    throw PolicyConfigError(error.what());
  }
}

model::ModelConfig model_config(const PolicyConfig& policy) {
  model::ModelConfig config;
  config.pi05 = policy.pi05;
  config.paligemma = model::gemma_variant(policy.paligemma_variant);
  config.action_expert = model::gemma_variant(policy.action_expert_variant);
  config.vision = model::siglip_so400m();
  config.vocab_size = paligemma_vocab_size;
  config.action_dim = policy.action_dim;
  config.action_horizon = policy.action_horizon;
  config.max_token_len = policy.max_token_len;
  return config;
}

void check_architecture(const PolicyConfig& policy, const model::ModelConfig& architecture, const std::string& source) {
  check_same(policy, source, "pi05", text_of(architecture.pi05), text_of(policy.pi05));
  const auto check = [&](const std::string& key, std::int64_t found, std::int64_t expected) {
    check_same(policy, source, key, std::to_string(found), std::to_string(expected));
  };
  check("action_dim", architecture.action_dim, policy.action_dim);
  check("action_horizon", architecture.action_horizon, policy.action_horizon);
  check("max_token_len", architecture.max_token_len, policy.max_token_len);
}

void check_stored_config(const PolicyConfig& policy, const Json& stored, const std::string& source) {
  JsonFields fields(stored, source);
  const auto check = [&](const std::string& key, std::int64_t expected) {
    if (fields.has(key)) check_same(policy, source, key, std::to_string(fields.count(key)), std::to_string(expected));
  };
  const auto check_variant = [&](const std::string& key, const std::string& expected) {
    if (fields.has(key)) {
      check_same(policy, source, key, model::without_lora(fields.text(key)), model::without_lora(expected));
    }
  };
  if (fields.has("pi05")) check_same(policy, source, "pi05", text_of(fields.flag("pi05")), text_of(policy.pi05));
  check("action_dim", policy.action_dim);
  check("action_horizon", policy.action_horizon);
  check_variant("paligemma_variant", policy.paligemma_variant);
  check_variant("action_expert_variant", policy.action_expert_variant);
}

}  // namespace pi0::policy
