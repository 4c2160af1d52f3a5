#include "model/policy/lerobot_folder.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "model/checkpoint.h"
#include "model/json_fields.h"
#include "model/safetensors.h"

namespace pi0::policy {
namespace {

namespace fs = std::filesystem;
using model::Json;
using model::JsonFields;
using Tensors = std::map<std::string, at::Tensor>;

constexpr const char* state_key = "observation.state";
constexpr const char* action_key = "action";
constexpr const char* preprocessor_name = "policy_preprocessor.json";
constexpr const char* postprocessor_name = "policy_postprocessor.json";
constexpr std::size_t most_cameras = 3;

fs::path config_file(const fs::path& folder) { return folder / "config.json"; }

std::string size_text(std::int64_t size) { return std::to_string(size) + (size == 1 ? " number" : " numbers"); }

// Refuses a key unless it is absent or has the one value that is supported.
void require(JsonFields& fields, const std::string& key, const Json& expected, const std::string& why) {
  if (!fields.has(key) || fields.value(key) == expected) return;
  fields.refuse("'" + key + "' is " + model::shown(fields.value(key)) + ", expected " + model::shown(expected) + ": " +
                why);
}

// One of input_features or output_features.
struct Feature {
  std::string key;
  std::string type;
  Json shape;
};

std::vector<Feature> read_features(JsonFields& fields, const std::string& key) {
  std::vector<Feature> features;
  for (const auto& [name, value] : fields.any_object(key).items()) {
    JsonFields feature(value, std::string(key).append(".").append(name));
    features.push_back({name, feature.text("type"), feature.value("shape")});
  }
  return features;
}

// How many numbers a feature has; LeRobot adds a missing one with as many as it pads to.
std::int64_t size_of(JsonFields& fields, const std::string& place, const std::string& key,
                     const std::vector<Feature>& features, std::int64_t padded) {
  const auto found = std::ranges::find(features, key, &Feature::key);
  if (found == features.end()) return padded;
  const Json& shape = found->shape;
  const bool is_size = shape.is_array() && shape.size() == 1 && shape[0].is_number_unsigned() && shape[0] > 0;
  if (!is_size || shape[0] > padded) {
    fields.refuse("'" + place + "." + key + "' has the shape " + model::shown(shape) + ", expected one size up to " +
                  std::to_string(padded));
  }
  return shape[0].get<std::int64_t>();
}

// The sizes that config.json says, and what of it decides how the model runs.
struct Config {
  std::string source;
  Json json;
  bool pi05 = false;
  bool up_to_0_3 = false;
  std::int64_t action_dim = 0, action_horizon = 0, max_token_len = 0, num_steps = 10;
  std::int64_t state_size = 0, action_size = 0;
  std::string paligemma_variant = "gemma_2b", action_expert_variant = "gemma_300m";
  std::vector<std::string> cameras = {};  // without empty ones, which are never sent
};

void read_sizes(JsonFields& fields, Config& config) {
  const std::string type = fields.text("type");
  if (type != "pi0" && type != "pi05") {
    fields.refuse("'type' is \"" + type + "\", expected \"pi0\" or \"pi05\": no other LeRobot policy is supported");
  }
  config.pi05 = type == "pi05";
  config.action_dim = fields.count("max_action_dim");
  config.action_horizon = fields.count("chunk_size");
  config.max_token_len = fields.count("tokenizer_max_length");
}

void read_cameras(JsonFields& fields, const std::vector<Feature>& inputs, Config& config) {
  for (const Feature& input : inputs) {
    const bool is_empty = input.key.starts_with("observation.images.empty_camera_");
    if (input.type == "VISUAL" && !is_empty) config.cameras.push_back(input.key);
  }
  if (config.cameras.empty()) fields.refuse("'input_features' has no camera (\"VISUAL\"), expected one to three");
  if (config.cameras.size() > most_cameras) {
    std::string names;
    for (const std::string& camera : config.cameras) names += (names.empty() ? "" : ", ") + camera;
    fields.refuse("'input_features' has " + std::to_string(config.cameras.size()) + " cameras (" + names +
                  "), expected at most three");
  }
}

void refuse_unsupported(JsonFields& fields, const fs::path& folder) {
  const std::string merge = "a PEFT adapter must be merged into the weights (merge_and_unload)";
  if (fs::exists(folder / "adapter_config.json")) fields.refuse("adapter_config.json is beside it: " + merge);
  require(fields, "use_peft", false, merge);
  require(fields, "use_visual_memory", false, "visual memory is not supported");
  require(fields, "use_proprioceptive_memory", false, "proprioceptive memory is not supported");
  require(fields, "n_obs_steps", 1, "several observation steps are not supported");
  require(fields, "image_resolution", {224, 224}, "the model takes no other size");
  require(fields, "resize_imgs_with_padding", {224, 224}, "the model takes no other size");
  require(fields, "min_period", 4e-3, "the time embedding is the base model's");
  require(fields, "max_period", 4.0, "the time embedding is the base model's");
  require(fields, "adapt_to_pi_aloha", false, "ALOHA's units are not converted for LeRobot's policies");
  require(fields, "use_delta_joint_actions_aloha", false, "LeRobot has no such actions either");
}

Config read_config(const fs::path& folder) {
  Config config{.source = config_file(folder).string(), .json = model::read_json(config_file(folder))};
  JsonFields fields(config.json, config.source);
  read_sizes(fields, config);
  refuse_unsupported(fields, folder);
  // Only Pi0 has a layer for the state, but every version pads both.
  require(fields, "max_state_dim", config.action_dim, "states and actions are padded to one size ('max_action_dim')");
  config.up_to_0_3 = fields.has("resize_imgs_with_padding");
  const char* steps_key = config.up_to_0_3 ? "num_steps" : "num_inference_steps";
  if (fields.has(steps_key)) config.num_steps = fields.count(steps_key);
  if (config.num_steps > 1000) fields.refuse("'" + std::string(steps_key) + "' is above 1000");
  for (auto [key, variant] : {std::pair{"paligemma_variant", &config.paligemma_variant},
                              std::pair{"action_expert_variant", &config.action_expert_variant}}) {
    if (!fields.has(key)) continue;
    *variant = fields.text(key);
    try {
      model::gemma_variant(*variant);
    } catch (const std::invalid_argument& error) {
      fields.refuse("'" + std::string(key) + "': " + error.what());
    }
  }
  const std::vector<Feature> inputs = read_features(fields, "input_features");
  const std::vector<Feature> outputs = read_features(fields, "output_features");
  config.state_size = size_of(fields, "input_features", state_key, inputs, config.action_dim);
  config.action_size = size_of(fields, "output_features", action_key, outputs, config.action_dim);
  read_cameras(fields, inputs, config);
  return config;
}

// The normalization of states ("STATE") or actions ("ACTION") in a map of them.
Normalization read_normalization(JsonFields map, const std::string& type) {
  if (map.has("VISUAL")) require(map, "VISUAL", "IDENTITY", "pictures are not normalised by statistics");
  const std::string mode = map.text(type);
  if (mode == "MEAN_STD") return Normalization::lerobot_z_score;
  if (mode == "QUANTILES") return Normalization::lerobot_quantile;
  map.mistyped(type, "\"MEAN_STD\" or \"QUANTILES\": no other normalization is supported");
}

// What one of the policy's two normalizers says of states or actions.
struct Normalized {
  Normalization form;
  FieldStats stats;
};

// `find` gives the tensor of a name, or none.
template <class Find>
FieldStats read_stats(Normalization form, const std::string& source, const std::string& prefix, std::int64_t size,
                      Find find) {
  const auto read = [&](const char* statistic) {
    const std::string name = prefix + "." + statistic;
    const auto refuse = [&](const std::string& what) { throw NormStatsError(source + ": '" + name + "' " + what); };
    const std::optional<at::Tensor> tensor = find(name);
    if (!tensor) refuse("is missing; without statistics the answers would not be in the robot's units");
    if (tensor->sizes() != at::IntArrayRef{size}) {
      refuse(c10::str("has shape ", tensor->sizes(), ", expected [", size, "]"));
    }
    const at::Tensor values = tensor->to(at::kFloat).to(at::kDouble).contiguous();  // LeRobot computes in float32
    if (!values.isfinite().all().item<bool>()) {
      refuse("has values that are not finite; was the policy saved without statistics?");
    }
    return std::vector<double>(values.const_data_ptr<double>(), values.const_data_ptr<double>() + size);
  };
  FieldStats stats;
  const bool quantile = form == Normalization::lerobot_quantile;
  (quantile ? stats.q01 : stats.mean) = read(quantile ? "q01" : "mean");
  (quantile ? stats.q99 : stats.std) = read(quantile ? "q99" : "std");
  return stats;
}

// policy_preprocessor.json or policy_postprocessor.json.
class Processor {
 public:
  // `known` are the steps that LeRobot's policies have. Other steps, or another order, would be another function.
  Processor(fs::path file, const std::vector<std::string>& known)
      : file_(std::move(file)), json_(model::read_json(file_)) {
    JsonFields fields(json_, file_.string());
    auto next = known.begin();
    for (JsonFields& step : fields.objects("steps")) {
      const std::string name = step.text(step.has("registry_name") ? "registry_name" : "class");
      const auto found = std::find(next, known.end(), name);
      if (found == known.end()) {
        std::string expected;
        for (const std::string& each : known) expected += (expected.empty() ? "" : ", ") + each;
        step.refuse("the step '" + name + "' is unknown or in another order; expected, in this order: " + expected);
      }
      next = found + 1;
      steps_.emplace_back(name, step);
    }
  }
  Processor(const Processor&) = delete;
  Processor& operator=(const Processor&) = delete;

  bool has(const std::string& name) const {
    return std::ranges::find(steps_, name, &std::pair<std::string, JsonFields>::first) != steps_.end();
  }
  JsonFields& step(const std::string& name) {
    const auto found = std::ranges::find(steps_, name, &std::pair<std::string, JsonFields>::first);
    if (found == steps_.end()) refuse("the step '" + name + "' is missing");
    return found->second;
  }
  JsonFields config(const std::string& name) { return step(name).object("config"); }
  [[noreturn]] void refuse(const std::string& what) const { throw model::JsonFileError(file_.string() + ": " + what); }

  // What a normalizer step does to the feature `key`, which has `size` numbers.
  Normalized normalized(const std::string& name, const std::string& type, const std::string& key, std::int64_t size) {
    JsonFields fields = config(name);
    require(fields, "eps", 1e-8, "another epsilon is not supported");
    bool is_feature = false;
    for (const Feature& feature : read_features(fields, "features")) {
      is_feature = is_feature || (feature.key == key && feature.type == type);
    }
    const bool has_keys = fields.has("normalize_observation_keys") && type == "STATE";
    if (has_keys) is_feature = is_feature && contains(fields.texts("normalize_observation_keys"), key);
    if (!is_feature) fields.refuse("'" + key + "' is not normalised, expected that it is");
    const Normalization form = read_normalization(fields.object("norm_map"), type);
    if (!step(name).has("state_file")) {
      step(name).refuse("'state_file' is missing: without statistics the answers would not be in the robot's units");
    }
    const fs::path state_file = step(name).text("state_file");
    if (state_file != state_file.filename()) step(name).mistyped("state_file", "the name of a file beside it");
    const model::SafetensorsFile file(file_.parent_path() / state_file);
    const auto find = [&](const std::string& tensor) {
      return file.entries().contains(tensor) ? std::optional(file.tensor(tensor)) : std::nullopt;
    };
    return {form, read_stats(form, file.path().string(), key, size, find)};
  }

 private:
  static bool contains(const std::vector<std::string>& list, const std::string& item) {
    return std::ranges::find(list, item) != list.end();
  }

  fs::path file_;
  Json json_;
  std::vector<std::pair<std::string, JsonFields>> steps_;
};

// The request's field that the preprocessor renames to `key`.
std::string field_of(Processor& preprocessor, const std::string& key) {
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

std::vector<bool> read_relative_actions(Processor& preprocessor, Processor& postprocessor, const Config& config) {
  const auto enabled = [](Processor& processor, const std::string& name) {
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

void check_device(Processor& processor) {
  if (!processor.has("device_processor")) return;
  JsonFields fields = processor.config("device_processor");
  if (!fields.has("float_dtype") || fields.value("float_dtype").is_null()) return;
  require(fields, "float_dtype", "float32", "LeRobot's processors run in float32 here");
}

// Empty if the folder has none.
fs::path tokenizer_model(const fs::path& folder) {
  const fs::path file = folder / "tokenizer.model";
  return fs::exists(file) ? file : fs::path();
}

void read_tokenizer(Processor& preprocessor, const Config& config, const fs::path& folder, LeRobotFolder& read) {
  JsonFields fields = preprocessor.config("tokenizer_processor");
  require(fields, "max_length", config.max_token_len, "config.json's 'tokenizer_max_length' says so");
  require(fields, "task_key", "task", "no other key is supported");
  require(fields, "padding_side", "right", "the model's prompts are padded there");
  require(fields, "padding", "max_length", "the model's prompts are padded so");
  require(fields, "truncation", true, "longer prompts are cut");
  if (fields.has("tokenizer_name")) read.tokenizer_name = fields.text("tokenizer_name");
  JsonFields& step = preprocessor.step("tokenizer_processor");
  if (!step.has("artifacts")) return;
  const fs::path place = step.object("artifacts").text("tokenizer_name");
  if (place != place.filename()) step.mistyped("artifacts", "the name of a folder beside it");
  read.tokenizer = tokenizer_model(folder / place);
}

RobotConfig robot_of(const Config& config, const std::function<std::string(const std::string&)>& field_of) {
  RobotConfig robot;
  for (const char* input : {"base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"}) {
    const std::size_t i = robot.cameras.size();
    robot.cameras.push_back({input, i < config.cameras.size() ? field_of(config.cameras[i]) : ""});
  }
  robot.image_layout = ImageLayout::any;
  robot.state = {{field_of(state_key), config.state_size}};
  robot.action_size = config.action_size;
  robot.prompt_alias = "task";
  return robot;
}

PolicyConfig policy_of(const Config& config, const fs::path& folder, LeRobotVersion version) {
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
void read_processors(const Config& config, const fs::path& folder, LeRobotFolder& read) {
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
  Processor preprocessor(folder / preprocessor_name, config.pi05 ? pi05 : pi0);
  Processor postprocessor(folder / postprocessor_name,
                          {"unnormalizer_processor", "absolute_actions_processor", "device_processor"});
  check_device(preprocessor);
  check_device(postprocessor);
  if (config.pi05) {
    JsonFields fields = preprocessor.config(prepare);
    require(fields, "include_state_in_prompt", true, "the prompt holds the state");
    require(fields, "max_state_dim", config.action_dim, "config.json says so");
  } else {
    preprocessor.step("pi0_new_line_processor");
  }
  read_tokenizer(preprocessor, config, folder, read);
  const Normalized state = preprocessor.normalized("normalizer_processor", "STATE", state_key, config.state_size);
  const Normalized actions =
      postprocessor.normalized("unnormalizer_processor", "ACTION", action_key, config.action_size);
  if (state.form != actions.form) {
    preprocessor.refuse("states and actions are normalised differently, expected both as MEAN_STD or as QUANTILES");
  }
  read.policy.normalization = state.form;
  read.norm_stats = {state.stats, actions.stats, folder.string()};
  read.policy.robot = robot_of(config, [&](const std::string& key) { return field_of(preprocessor, key); });
  read.policy.delta_action_mask = read_relative_actions(preprocessor, postprocessor, config);
}

// Up to 0.3: the statistics lie among the weights.
void read_weights(Config& config, const fs::path& folder, LeRobotFolder& read) {
  const Tensors tensors = model::Checkpoint(folder).statistics();
  if (tensors.empty()) {
    throw NormStatsError(folder.string() + ": has no statistics, neither in " + preprocessor_name +
                         " nor among the weights (normalize_inputs.buffer_observation_state.mean)");
  }
  JsonFields fields(config.json, config.source);
  const std::string key = "normalization_mapping";
  const Normalization state = read_normalization(fields.object(key), "STATE");
  if (state != read_normalization(fields.object(key), "ACTION") || state != Normalization::lerobot_z_score) {
    fields.mistyped(key, "MEAN_STD for STATE and ACTION, as its statistics among the weights are");
  }
  const auto stats = [&](const std::string& prefix, std::int64_t size) {
    return read_stats(state, folder.string(), prefix, size, [&](const std::string& name) {
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
    Config config = read_config(folder);
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
    const Json json = model::read_json(config_file(folder));
    JsonFields fields(json, config_file(folder).string());
    Config config;
    read_sizes(fields, config);
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
