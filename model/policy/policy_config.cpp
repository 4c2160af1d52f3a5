#include "model/policy/policy_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "model/policy/builtin_policies.h"
#include "model/policy/robot.h"
#include "model/policy/text_file.h"

namespace pi0::policy {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t paligemma_vocab_size = 257152;

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

const std::vector<std::string>& known_keys() {
  static const std::vector<std::string> keys = {"pi05",
                                                "paligemma_variant",
                                                "action_expert_variant",
                                                "action_dim",
                                                "action_horizon",
                                                "max_token_len",
                                                "discrete_state_input",
                                                "asset_id",
                                                "normalization",
                                                "robot",
                                                "delta_action_mask",
                                                "default_prompt",
                                                "metadata"};
  return keys;
}

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

// The fields of one file; `source` names it in messages.
class Fields {
 public:
  Fields(const Json& object, const std::string& source) : object_(object), source_(source) {
    if (!object.is_object()) refuse("is " + object.dump() + ", expected an object");
    for (const auto& [key, value] : object.items()) {
      if (std::find(known_keys().begin(), known_keys().end(), key) == known_keys().end()) {
        refuse("unknown key '" + key + "'; known: " + joined(known_keys()));
      }
    }
  }

  bool has(const std::string& key) const { return object_.contains(key); }

  const Json& value(const std::string& key) const {
    if (!has(key)) refuse("'" + key + "' is missing");
    return object_[key];
  }

  bool flag(const std::string& key) const {
    if (!value(key).is_boolean()) mistyped(key, "true or false");
    return value(key).get<bool>();
  }

  std::int64_t count(const std::string& key) const {
    constexpr std::int64_t limit = 1 << 20;  // far above any real size, far below overflow
    if (!value(key).is_number_unsigned() || value(key) < 1 || value(key) > limit) {
      mistyped(key, "a positive integer");
    }
    return value(key).get<std::int64_t>();
  }

  std::string text(const std::string& key) const {
    if (!value(key).is_string() || value(key) == "") mistyped(key, "a text that is not empty");
    return value(key).get<std::string>();
  }

  std::vector<bool> flags(const std::string& key) const {
    const Json& list = value(key);
    const auto is_flag = [](const Json& item) { return item.is_boolean(); };
    if (!list.is_array() || list.empty() || !std::all_of(list.begin(), list.end(), is_flag)) {
      mistyped(key, "a list of true and false");
    }
    return list.get<std::vector<bool>>();
  }

  protocol::Dict dict(const std::string& key) const {
    if (!value(key).is_object()) mistyped(key, "an object");
    return std::get<protocol::Dict>(as_value(value(key)));
  }

  [[noreturn]] void mistyped(const std::string& key, const std::string& expected) const {
    refuse("'" + key + "' is " + value(key).dump() + ", expected " + expected);
  }

  [[noreturn]] void refuse(const std::string& what) const {
    throw PolicyConfigError(source_ + ": " + what);
  }

 private:
  const Json& object_;
  const std::string& source_;
};

Normalization read_normalization(const Fields& fields) {
  const std::string form = fields.text("normalization");
  if (form == "quantile") return Normalization::quantile;
  if (form == "z_score") return Normalization::z_score;
  fields.mistyped("normalization", "\"quantile\" or \"z_score\"");
}

std::string read_variant(const Fields& fields, const std::string& key) {
  std::string variant = fields.text(key);
  try {
    model::gemma_variant(variant);
  } catch (const std::invalid_argument& error) {
    fields.refuse("'" + key + "': " + error.what());
  }
  return variant;
}

std::string read_robot(const Fields& fields) {
  std::string robot = fields.text("robot");
  try {
    make_robot(robot);
  } catch (const std::invalid_argument& error) {
    fields.refuse(std::string("'robot': ") + error.what());
  }
  return robot;
}

PolicyConfig parse(const std::string& name, const std::string& text, const std::string& source) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::exception& error) {
    throw PolicyConfigError(source + ": is not valid JSON: " + error.what());
  }
  const Fields fields(json, source);
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
  policy.robot = read_robot(fields);
  if (fields.has("delta_action_mask")) policy.delta_action_mask = fields.flags("delta_action_mask");
  if (fields.has("default_prompt")) policy.default_prompt = fields.text("default_prompt");
  if (fields.has("metadata")) policy.metadata = fields.dict("metadata");

  const auto robot = make_robot(policy.robot);
  if (policy.action_dim < std::max(robot->state_size(), robot->action_size())) {
    fields.refuse("'action_dim' is " + std::to_string(policy.action_dim) +
                  ", too small for the robot '" + policy.robot + "'");
  }
  if (policy.delta_action_mask.size() > static_cast<std::size_t>(policy.action_dim)) {
    fields.refuse("'delta_action_mask' is longer than 'action_dim'");
  }
  if (policy.discrete_state_input && !policy.pi05) {
    fields.refuse("'discrete_state_input' is true, which only a Pi0.5 model was trained with");
  }
  return policy;
}

}  // namespace

PolicyConfig policy_config(const std::string& name) {
  const auto found = builtin_policies().find(name);
  if (found == builtin_policies().end()) {
    throw PolicyConfigError("unknown config '" + name + "'; known: " + joined(policy_names()));
  }
  return parse(name, found->second, "config " + name);
}

std::vector<std::string> policy_names() {
  std::vector<std::string> names;
  for (const auto& [name, text] : builtin_policies()) names.push_back(name);
  return names;
}

PolicyConfig read_policy_config(const std::filesystem::path& file) {
  std::string text;
  try {
    text = read_file(file);
  } catch (const std::runtime_error& error) {
    throw PolicyConfigError(error.what());
  }
  return parse(file.stem().string(), text, file.string());
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

void check_architecture(const PolicyConfig& policy, const model::ModelConfig& architecture,
                        const std::string& source) {
  const auto check = [&](const std::string& key, std::int64_t found, std::int64_t expected) {
    if (found == expected) return;
    const auto text = [&](std::int64_t value) {
      return key != "pi05" ? std::to_string(value) : value != 0 ? "true" : "false";
    };
    throw PolicyConfigError(source + ": '" + key + "' is " + text(found) + ", config " +
                            policy.name + " says " + text(expected) +
                            "; is this checkpoint of another config?");
  };
  check("pi05", architecture.pi05 ? 1 : 0, policy.pi05 ? 1 : 0);
  check("action_dim", architecture.action_dim, policy.action_dim);
  check("action_horizon", architecture.action_horizon, policy.action_horizon);
  check("max_token_len", architecture.max_token_len, policy.max_token_len);
}

}  // namespace pi0::policy
