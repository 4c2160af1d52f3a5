#include "tools/common/policy_parts.h"

#include <fmt/format.h>

#include <stdexcept>

#include "model/checkpoint.h"
#include "tools/common/tiny_tokenizer.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

// Random weights have no statistics: states and actions stay as they are.
policy::NormStats identity_stats(std::int64_t action_dim) {
  const auto all = [&](double value) { return std::vector<double>(static_cast<std::size_t>(action_dim), value); };
  const policy::FieldStats stats{all(0.0), all(1.0), all(-1.0), all(1.0)};
  return {stats, stats, "--random-weights"};
}

policy::NormStats load_stats(const model::CheckpointFolder& checkpoint, const policy::PolicyConfig& policy) {
  const fs::path file = policy::norm_stats_file(checkpoint.root, policy.asset_id);
  if (fs::exists(file)) return policy::read_norm_stats(file);
  std::string found;
  for (const std::string& id : policy::asset_ids(checkpoint.root)) found += (found.empty() ? "" : ", ") + id;
  throw policy::NormStatsError(
      file.string() + ": not found; config " + policy.name + " needs the statistics of '" + policy.asset_id + "', " +
      (!found.empty() ? "the checkpoint has those of: " + found
       : checkpoint.layout == model::Layout::lerobot
           ? "which a LeRobot folder does not have; without --config its own policy and statistics are served"
           : "but " + (checkpoint.root / "assets").string() +
                 " holds none; copy assets/ from the checkpoint that this one was made from"));
}

// The folder of --checkpoint-dir if it is LeRobot's and no other policy is chosen.
std::optional<policy::LeRobotFolder> lerobot_folder(const ModelOptions& options,
                                                    const std::optional<model::CheckpointFolder>& checkpoint) {
  if (!options.config.empty() || !options.config_file.empty()) return std::nullopt;
  if (checkpoint && checkpoint->layout == model::Layout::lerobot) {
    return policy::read_lerobot_folder(checkpoint->root,
                                       options.lerobot_version.value_or(policy::LeRobotVersion::v0_5));
  }
  if (!options.lerobot_version) return std::nullopt;
  throw std::invalid_argument("--lerobot-version needs a LeRobot checkpoint, but '" + options.checkpoint_dir.string() +
                              "' has no config.json with a policy's \"type\"");
}

// What --checkpoint-dir names; none when it is not given.
std::optional<model::CheckpointFolder> chosen_checkpoint(const ModelOptions& options) {
  const fs::path& place = options.checkpoint_dir;
  if (place.empty()) return std::nullopt;
  // Only what lies beside the weights is needed.
  const bool needs_no_weights = options.random_weights && !fs::exists(place / "config.json");
  if (needs_no_weights) return model::CheckpointFolder{model::Layout::openpi, place, place, {}};
  return model::find_checkpoint(place);
}

// What the options choose, read once.
struct Choice {
  std::optional<model::CheckpointFolder> checkpoint;
  std::optional<policy::LeRobotFolder> lerobot;  // the checkpoint, if its own policy is served
  std::optional<policy::PolicyConfig> policy;
};

// The policy is that of --config or --config-file, else the one of a LeRobot checkpoint or of a checkpoint with
// policy.json. Throws when both are there and contradict each other.
Choice read_choice(const ModelOptions& options) {
  Choice choice;
  choice.checkpoint = chosen_checkpoint(options);
  choice.lerobot = lerobot_folder(options, choice.checkpoint);
  std::optional<policy::PolicyConfig>& policy = choice.policy;
  if (choice.lerobot) {
    policy = choice.lerobot->policy;
    return choice;
  }
  const std::optional<model::CheckpointFolder>& checkpoint = choice.checkpoint;
  if (!options.config_file.empty()) policy = policy::read_policy_config(options.config_file);
  if (!options.config.empty()) policy = policy::policy_config(options.config);
  if (!policy && checkpoint && fs::exists(checkpoint->root / policy_file_name)) {
    policy = policy::read_policy_config(checkpoint->root / policy_file_name);
  }
  if (policy && checkpoint && checkpoint->layout == model::Layout::lerobot) {
    policy::check_lerobot_model(*policy, checkpoint->root);
  }
  return choice;
}

model::ModelConfig sizes_of(const Choice& choice) {
  const fs::path architecture = choice.checkpoint ? choice.checkpoint->root / "architecture.json" : fs::path();
  const bool has_architecture = choice.checkpoint && fs::exists(architecture);
  if (!choice.policy && !has_architecture) {
    throw std::invalid_argument(
        "the model's sizes are unknown: give --config, or a --checkpoint-dir with architecture.json");
  }
  model::ModelConfig sizes =
      has_architecture ? model::read_architecture(architecture) : policy::model_config(*choice.policy);
  if (choice.policy && has_architecture) policy::check_architecture(*choice.policy, sizes, architecture.string());
  if (choice.lerobot) sizes.num_steps = choice.lerobot->num_steps;
  return sizes;
}

// The tokenizer of a LeRobot folder without --tokenizer.
fs::path lerobot_tokenizer(const policy::LeRobotFolder& lerobot, const fs::path& folder,
                           std::vector<std::string>& warnings) {
  if (!lerobot.tokenizer.empty()) return lerobot.tokenizer;
  if (lerobot.tokenizer_name != "tokenizer" && lerobot.tokenizer_name.find("paligemma") == std::string::npos) {
    throw policy::TokenizerError("tokenizer '" + lerobot.tokenizer_name + "' of " + folder.string() +
                                 " is not PaliGemma's; give its SentencePiece model as --tokenizer");
  }
  fs::path found = policy::find_tokenizer(folder);
  warnings.push_back(folder.string() + ": has no tokenizer.model; its tokenizer '" + lerobot.tokenizer_name +
                     "' is taken to be " + found.string());
  return found;
}

policy::PromptTokenizer load_tokenizer(const ModelOptions& options, const Choice& choice, std::int64_t vocab_size,
                                       std::vector<std::string>& warnings) {
  if (options.tokenizer.empty() && !choice.checkpoint) {
    return {tiny_tokenizer(), "the tokenizer of random checkpoints", vocab_size};
  }
  const fs::path file = !options.tokenizer.empty() ? options.tokenizer
                        : choice.lerobot ? lerobot_tokenizer(*choice.lerobot, choice.checkpoint->root, warnings)
                                         : policy::find_tokenizer(choice.checkpoint->root);
  return policy::PromptTokenizer::from_file(file, vocab_size);
}

// Throws when the weights are of the other model, or of another action size, than `sizes`.
void check_model(const model::CheckpointFolder& checkpoint, const model::ModelConfig& sizes,
                 const std::string& config) {
  const model::StoredSizes stored = model::stored_sizes(*model::open_checkpoint(checkpoint));
  const auto refuse = [&](const std::string& found, const std::string& expected) {
    throw model::CheckpointError(fmt::format("{}: holds {}, config {} says {}; is this checkpoint of another config?",
                                             checkpoint.weights.string(), found, config, expected));
  };
  const auto model_name = [](bool pi05) { return std::string(pi05 ? "a Pi0.5 model" : "a Pi0 model"); };
  if (stored.pi05 && *stored.pi05 != sizes.pi05) refuse(model_name(*stored.pi05), model_name(sizes.pi05));
  const auto action_size = [](std::int64_t size) { return "action_dim " + std::to_string(size); };
  if (stored.action_dim && *stored.action_dim != sizes.action_dim) {
    refuse(action_size(*stored.action_dim), action_size(sizes.action_dim));
  }
}

}  // namespace

std::string check_lora(const model::CheckpointFolder& checkpoint, bool allowed) {
  if (checkpoint.layout != model::Layout::openpi || !checkpoint.config.is_object()) return "";
  for (const char* key : {"paligemma_variant", "action_expert_variant"}) {
    const model::Json variant = checkpoint.config.value(key, model::Json());
    if (!variant.is_string() || !variant.get<std::string>().ends_with("_lora")) continue;
    const std::string lost =
        fmt::format("{}: '{}' is \"{}\", so openpi's converter lost this checkpoint's LoRA adapters",
                    (checkpoint.root / "config.json").string(), key, variant.get<std::string>());
    if (allowed) return lost + "; running without them";
    throw model::CheckpointError(lost +
                                 "; give the JAX checkpoint that it was converted from, whose adapters are read, or "
                                 "--allow-lost-lora to run without them");
  }
  return "";
}

model::ModelConfig chosen_sizes(const ModelOptions& options) { return sizes_of(read_choice(options)); }

std::optional<policy::PolicyConfig> chosen_policy(const ModelOptions& options) { return read_choice(options).policy; }

PolicyParts load_parts(const ModelOptions& options) {
  require_checkpoint(options);
  const Choice choice = read_choice(options);
  const auto& [checkpoint, lerobot, config] = choice;
  if (!config) {
    throw std::invalid_argument(
        "no policy: give --config or --config-file" +
        (checkpoint ? "; 'pi0 inspect " + options.checkpoint_dir.string() + "' says which fit this checkpoint"
                    : std::string()));
  }
  std::vector<std::string> warnings = lerobot ? lerobot->warnings : std::vector<std::string>();
  if (checkpoint && checkpoint->layout == model::Layout::openpi) {
    const std::string lost = check_lora(*checkpoint, options.allow_lost_lora);
    if (!lost.empty()) warnings.push_back(lost);
    if (!checkpoint->config.is_null()) {
      policy::check_stored_config(*config, checkpoint->config, (checkpoint->root / "config.json").string());
    }
  }
  const model::ModelConfig sizes = sizes_of(choice);
  if (checkpoint && !options.random_weights) check_model(*checkpoint, sizes, config->name);
  policy::NormStats stats = lerobot      ? lerobot->norm_stats
                            : checkpoint ? load_stats(*checkpoint, *config)
                                         : identity_stats(config->action_dim);
  policy::PromptTokenizer tokenizer = load_tokenizer(options, choice, sizes.vocab_size, warnings);
  return {*config, sizes, std::move(stats), std::move(tokenizer), std::move(warnings)};
}

}  // namespace pi0::tools
