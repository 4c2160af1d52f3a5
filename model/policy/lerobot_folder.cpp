#include "model/policy/lerobot_folder.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "model/checkpoint.h"
#include "model/json_fields.h"
#include "model/policy/lerobot_config.h"
#include "model/policy/lerobot_processor.h"

namespace pi0::policy {
namespace {

namespace fs = std::filesystem;
using model::JsonFields;
using Tensors = std::map<std::string, at::Tensor>;

constexpr const char* preprocessor_name = "policy_preprocessor.json";
constexpr const char* postprocessor_name = "policy_postprocessor.json";

std::string size_text(std::int64_t size) { return std::to_string(size) + (size == 1 ? " number" : " numbers"); }

// The request's field that the preprocessor renames to `key`.
std::string field_of(LeRobotProcessor& preprocessor, const std::string& key) {
  if (!preprocessor.has("rename_observations_processor")) return key;
  JsonFields fields = preprocessor.config("rename_observations_processor");
  if (!fields.has("rename_map")) return key;
  std::vector<std::string> found;
  bool is_taken = false;
  for (const auto& [before, after] : fields.any_object("rename_map").items()) {
    if (after == key) found.push_back(before);
    is_taken = is_taken || before == key;
  }
  if (found.size() > 1 || (found.empty() && is_taken)) {
    fields.refuse("'rename_map' has " + std::to_string(found.size()) + " fields that become '" + key +
                  "', expected one");
  }
  return found.empty() ? key : found.front();
}

std::string lower_case(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

// RelativeActionsProcessorStep._build_mask.
std::vector<bool> relative_mask(JsonFields relative, std::int64_t action_size) {
  const auto texts = [&](const char* key) {
    const bool has_texts = relative.has(key) && relative.value(key).is_array() && !relative.value(key).empty();
    return has_texts ? relative.texts(key) : std::vector<std::string>();
  };
  const std::vector<std::string> excluded = texts("exclude_joints"), names = texts("action_names");
  std::vector<bool> mask(static_cast<std::size_t>(action_size), true);
  for (std::size_t dim = 0; dim < std::min(mask.size(), names.size()); ++dim) {
    mask[dim] = std::ranges::none_of(excluded, [&](const std::string& part) {
      return !part.empty() && lower_case(names[dim]).find(lower_case(part)) != std::string::npos;
    });
  }
  return mask;
}

std::vector<bool> read_relative_actions(LeRobotProcessor& preprocessor, LeRobotProcessor& postprocessor,
                                        const LeRobotConfig& config) {
  const auto enabled = [](LeRobotProcessor& processor, const std::string& name) {
    if (!processor.has(name)) return false;
    JsonFields fields = processor.config(name);
    return fields.has("enabled") && fields.flag("enabled");
  };
  const std::string relative = "relative_actions_processor", absolute = "absolute_actions_processor";
  const bool is_relative = enabled(preprocessor, relative);
  if (is_relative != enabled(postprocessor, absolute)) {
    preprocessor.refuse("'" + relative + "' is " + (is_relative ? "" : "not ") + "enabled, but '" + absolute + "' of " +
                        postprocessor_name + " is " + (is_relative ? "not" : "enabled"));
  }
  if (!is_relative) return {};
  if (config.state_size < config.action_size) {
    preprocessor.refuse("'" + relative + "' needs a state of at least " + size_text(config.action_size) + ", found " +
                        std::to_string(config.state_size));
  }
  return relative_mask(preprocessor.config(relative), config.action_size);
}

void check_device(LeRobotProcessor& processor) {
  if (!processor.has("device_processor")) return;
  JsonFields fields = processor.config("device_processor");
  if (!fields.has("float_dtype") || fields.value("float_dtype").is_null()) return;
  require_value(fields, "float_dtype", "float32", "LeRobot's processors run in float32 here");
}

// Empty if the folder has none.
fs::path tokenizer_model(const fs::path& folder) {
  const fs::path file = folder / "tokenizer.model";
  return fs::exists(file) ? file : fs::path();
}

void read_tokenizer(LeRobotProcessor& preprocessor, const LeRobotConfig& config, const fs::path& folder,
                    LeRobotFolder& read) {
  JsonFields fields = preprocessor.config("tokenizer_processor");
  require_value(fields, "max_length", config.max_token_len, "config.json's 'tokenizer_max_length' says so");
  require_value(fields, "task_key", "task", "no other key is supported");
  require_value(fields, "padding_side", "right", "the model's prompts are padded there");
  require_value(fields, "padding", "max_length", "the model's prompts are padded so");
  require_value(fields, "truncation", true, "longer prompts are cut");
  if (fields.has("tokenizer_name")) read.tokenizer_name = fields.text("tokenizer_name");
  JsonFields& step = preprocessor.step("tokenizer_processor");
  if (!step.has("artifacts")) return;
  const fs::path place = step.object("artifacts").text("tokenizer_name");
  if (place != place.filename()) step.mistyped("artifacts", "the name of a folder beside it");
  read.tokenizer = tokenizer_model(folder / place);
}

RobotConfig robot_of(const LeRobotConfig& config, const std::function<std::string(const std::string&)>& field_of) {
  RobotConfig robot;
  for (const char* input : {"base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"}) {
    const std::size_t i = robot.cameras.size();
    robot.cameras.push_back({input, i < config.cameras.size() ? field_of(config.cameras[i]) : ""});
  }
  robot.image_layout = ImageLayout::any;
  robot.state = {{field_of(lerobot_state_key), config.state_size}};
  robot.action_size = config.action_size;
  robot.prompt_alias = "task";
  return robot;
}

PolicyConfig policy_of(const LeRobotConfig& config, const fs::path& folder, LeRobotVersion version) {
  PolicyConfig policy;
  policy.name = "lerobot:" + fs::absolute(folder / ".").lexically_normal().parent_path().filename().string();
  policy.pi05 = config.pi05;
  policy.paligemma_variant = config.paligemma_variant;
  policy.action_expert_variant = config.action_expert_variant;
  policy.action_dim = config.action_dim;
  policy.action_horizon = config.action_horizon;
  policy.max_token_len = config.max_token_len;
  policy.discrete_state_input = config.pi05;
  policy.asset_id = "lerobot";
  policy.resize = Resize::lerobot;
  if (config.up_to_0_3) policy.padding.place = Padding::Place::left_top;
  const bool is_0_4 = version == LeRobotVersion::v0_4;
  if (is_0_4) policy.padding.value = -3.0;
  policy.padded_state_in_prompt = is_0_4 && config.pi05;
  policy.clean_prompt = config.pi05;
  return policy;
}

// 0.4 and later.
void read_processors(const LeRobotConfig& config, const fs::path& folder, LeRobotFolder& read) {
  const std::vector<std::string> pi0 = {
      "rename_observations_processor", "to_batch_processor", "pi0_new_line_processor",
      "tokenizer_processor",           "device_processor",   "relative_actions_processor",
      "normalizer_processor"};
  const std::string prepare = "pi05_prepare_state_tokenizer_processor_step";
  const std::vector<std::string> pi05 = {"rename_observations_processor",
                                         "to_batch_processor",
                                         "relative_actions_processor",
                                         "normalizer_processor",
                                         prepare,
                                         "tokenizer_processor",
                                         "device_processor"};
  LeRobotProcessor preprocessor(folder / preprocessor_name, config.pi05 ? pi05 : pi0);
  LeRobotProcessor postprocessor(folder / postprocessor_name,
                                 {"unnormalizer_processor", "absolute_actions_processor", "device_processor"});
  check_device(preprocessor);
  check_device(postprocessor);
  if (config.pi05) {
    JsonFields fields = preprocessor.config(prepare);
    require_value(fields, "include_state_in_prompt", true, "the prompt holds the state");
    require_value(fields, "max_state_dim", config.action_dim, "config.json says so");
  } else {
    preprocessor.step("pi0_new_line_processor");
  }
  read_tokenizer(preprocessor, config, folder, read);
  const LeRobotNormalized state =
      preprocessor.normalized("normalizer_processor", "STATE", lerobot_state_key, config.state_size);
  const LeRobotNormalized actions =
      postprocessor.normalized("unnormalizer_processor", "ACTION", lerobot_action_key, config.action_size);
  if (state.form != actions.form) {
    preprocessor.refuse("states and actions are normalised differently, expected both as MEAN_STD or as QUANTILES");
  }
  read.policy.normalization = state.form;
  read.norm_stats = {state.stats, actions.stats, folder.string()};
  read.policy.robot = robot_of(config, [&](const std::string& key) { return field_of(preprocessor, key); });
  read.policy.delta_action_mask = read_relative_actions(preprocessor, postprocessor, config);
}

// Up to 0.3: the statistics lie among the weights.
void read_weights(LeRobotConfig& config, const fs::path& folder, LeRobotFolder& read) {
  const Tensors tensors = model::Checkpoint(folder).statistics();
  if (tensors.empty()) {
    throw NormStatsError(folder.string() + ": has no statistics, neither in " + preprocessor_name +
                         " nor among the weights (normalize_inputs.buffer_observation_state.mean)");
  }
  JsonFields fields(config.json, config.source);
  const std::string key = "normalization_mapping";
  const Normalization state = read_lerobot_normalization(fields.object(key), "STATE");
  if (state != read_lerobot_normalization(fields.object(key), "ACTION") || state != Normalization::lerobot_z_score) {
    fields.mistyped(key, "MEAN_STD for STATE and ACTION, as its statistics among the weights are");
  }
  const auto stats = [&](const std::string& prefix, std::int64_t size) {
    return read_lerobot_stats(state, folder.string(), prefix, size, [&](const std::string& name) {
      const auto found = tensors.find(name);
      return found == tensors.end() ? std::nullopt : std::optional(found->second);
    });
  };
  read.policy.normalization = state;
  read.norm_stats = {stats("normalize_inputs.buffer_observation_state", config.state_size),
                     stats("unnormalize_outputs.buffer_action", config.action_size), folder.string()};
  read.policy.robot = robot_of(config, [](const std::string& name) { return name; });
  const auto is_one = [](const std::vector<double>& values) {
    return std::ranges::all_of(values, [](double value) { return value == 1.0; });
  };
  const FieldStats &of_state = read.norm_stats.state, &of_actions = read.norm_stats.actions;
  if (is_one(of_state.mean) && is_one(of_state.std) && is_one(of_actions.mean) && is_one(of_actions.std)) {
    read.warnings.push_back(folder.string() +
                            ": every mean and standard deviation among the weights is 1; they are used, but they are "
                            "hardly those of any data");
  }
}

// Calls `read`; what JSON files lack becomes an error of the policy.
template <class Read>
auto as_policy_error(Read read) {
  try {
    return read();
  } catch (const model::JsonFileError& error) {
    throw PolicyConfigError(error.what());
  }
}

}  // namespace

LeRobotFolder read_lerobot_folder(const fs::path& folder, LeRobotVersion version) {
  return as_policy_error([&] {
    LeRobotConfig config = read_lerobot_config(folder);
    if (config.up_to_0_3 && version == LeRobotVersion::v0_4) {
      throw PolicyConfigError(config.source +
                              ": is of LeRobot 0.3 or earlier ('resize_imgs_with_padding'), not of 0.4");
    }
    LeRobotFolder read{.policy = policy_of(config, folder, version), .num_steps = config.num_steps};
    read.tokenizer = tokenizer_model(folder / "tokenizer");
    fs::exists(folder / preprocessor_name) ? read_processors(config, folder, read) : read_weights(config, folder, read);
    return read;
  });
}

void check_lerobot_model(const PolicyConfig& policy, const fs::path& folder) {
  as_policy_error([&] {
    const LeRobotConfig config = read_lerobot_sizes(folder);
    JsonFields fields(config.json, config.source);
    const auto check = [&](const std::string& key, bool same, const std::string& wanted) {
      if (same) return;
      fields.refuse("'" + key + "' is " + model::shown(fields.value(key)) + ", config " + policy.name + " says " +
                    wanted + "; without --config, the folder's own policy is served");
    };
    check("type", config.pi05 == policy.pi05, policy.pi05 ? "pi05" : "pi0");
    check("max_action_dim", config.action_dim == policy.action_dim, std::to_string(policy.action_dim));
    check("chunk_size", config.action_horizon == policy.action_horizon, std::to_string(policy.action_horizon));
    check("tokenizer_max_length", config.max_token_len == policy.max_token_len, std::to_string(policy.max_token_len));
  });
}

}  // namespace pi0::policy
