#include "tools/common/model_options.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <malloc.h>

#include <limits>
#include <random>
#include <stdexcept>

#include "model/backends/cpu/cpu_backend.h"
#include "model/backends/cuda/cuda_backend.h"
#include "model/checkpoint.h"
#include "tools/common/option_checks.h"
#include "tools/common/print.h"
#include "tools/common/progress.h"
#include "tools/common/tiny_tokenizer.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

// A request allocates and frees hundreds of tensors. Their memory stays with the process; otherwise the system would
// clear every page again, which takes a fifth of a request's time. It applies to later allocations.
void keep_freed_memory() {
  ::mallopt(M_ARENA_MAX, 1);  // large blocks of other arenas would be mapped all the same
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

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

model::Execution chosen_execution(const ModelOptions& options) {
  model::Execution execution{.device = chosen_device(options.device)};
  if (options.instructions && !execution.device.is_cpu()) {
    throw std::invalid_argument("--instructions chooses a CPU's kernels, but the model runs on " +
                                execution.device.str());
  }
  if (options.kernels == Kernels::reference) return execution;
  if (execution.device.is_cpu()) {
    execution.backend =
        model::cpu_backend(options.instructions ? *options.instructions : model::fastest_instruction_set());
  } else {
    execution.backend = model::cuda_backend(execution.device.index());
    execution.recorder = model::device_recorder(execution.device);
  }
  return execution;
}

std::uint64_t bytes_of(at::IntArrayRef shape, model::Storage storage) {
  return static_cast<std::uint64_t>(c10::multiply_integers(shape)) * at::elementSize(storage.dtype);
}

// How much memory a model's parameters take.
class ByteCount : public model::ShapeRecorder {
 public:
  at::Tensor load(const std::string& name, at::IntArrayRef shape, model::Storage storage) override {
    bytes_ += bytes_of(shape, storage);
    return ShapeRecorder::load(name, shape, storage);
  }
  std::uint64_t bytes() const { return bytes_; }

 private:
  std::uint64_t bytes_ = 0;
};

class ShownRandomWeights : public model::RandomWeights {
 public:
  ShownRandomWeights(std::uint64_t seed, std::uint64_t total) : RandomWeights(seed), total_(total) {}
  at::Tensor load(const std::string& name, at::IntArrayRef shape, model::Storage storage) override {
    at::Tensor drawn = RandomWeights::load(name, shape, storage);
    progress_.update(done_ += bytes_of(shape, storage), total_);
    return drawn;
  }

 private:
  std::uint64_t done_ = 0, total_;
  Progress progress_{"drawing random weights", Progress::Unit::bytes};
};

void require_checkpoint(const ModelOptions& options) {
  if (!options.checkpoint_dir.empty() || options.random_weights) return;
  throw std::invalid_argument("no checkpoint: give --checkpoint-dir, or --random-weights to try out");
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

CLI::Validator or_cached() {
  const auto replace = [](std::string& place) {
    const std::string scheme = "gs://";
    if (!place.starts_with(scheme)) return std::string();
    const fs::path copy = policy::openpi_data_home() / place.substr(scheme.size());
    if (fs::exists(copy)) place = copy.string();
    return std::string();
  };
  return {replace, ""};
}

CLI::Option* add_precision_option(CLI::App& app, model::Precision& precision, const std::string& description) {
  return choose_value<model::Precision>(
             app.add_option("--precision", precision, description),
             {{"bfloat16", model::Precision::bfloat16}, {"float32", model::Precision::float32}})
      ->default_str("bfloat16");
}

void add_lost_lora_option(CLI::App& app, bool& allowed) {
  app.add_flag("--allow-lost-lora", allowed,
               "Take a checkpoint whose LoRA adapters were lost in openpi's conversion, without them");
}

CLI::Option* add_lerobot_version_option(CLI::App& app, std::optional<policy::LeRobotVersion>& version) {
  return choose_value<policy::LeRobotVersion>(
      app.add_option("--lerobot-version", version,
                     "LeRobot that trained the policy, which its files do not tell; default: 0.5, and later"),
      {{"0.4", policy::LeRobotVersion::v0_4}, {"0.5", policy::LeRobotVersion::v0_5}});
}

void add_place_options(CLI::App& app, ModelOptions& options) {
  CLI::Option* config =
      app.add_option("--config", options.config, "openpi's name of the policy, for example pi05_droid");
  CLI::Option* config_file =
      app.add_option("--config-file", options.config_file, "File that defines your own policy (configs/README.md)")
          ->check(CLI::ExistingFile)
          ->excludes(config);
  app.add_option(
         "--checkpoint-dir", options.checkpoint_dir,
         "Checkpoint of openpi, PyTorch or JAX, or of LeRobot, which needs no --config: its folder, or the gs:// "
         "address of one in openpi's download cache")
      ->transform(or_cached());
  add_lerobot_version_option(app, options.lerobot_version)->excludes(config)->excludes(config_file);
}

void add_model_options(CLI::App& app, ModelOptions& options) {
  app.add_flag("--random-weights", options.random_weights,
               "Random weights instead of the checkpoint's, for trying out and timing");
  add_lost_lora_option(app, options.allow_lost_lora);
  app.add_option("--tokenizer", options.tokenizer,
                 "SentencePiece model; default: paligemma_tokenizer.model in the checkpoint, then in "
                 "$OPENPI_DATA_HOME/big_vision")
      ->check(CLI::ExistingFile);
  app.add_option_function<std::string>(
      "--default-prompt",
      [&options](const std::string& prompt) {
        if (prompt != "None") options.default_prompt = prompt;  // openpi's word for none
      },
      "Prompt for requests without one");
  app.add_option("--device", options.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  add_precision_option(app, options.precision, "bfloat16 as openpi serves, or float32");
  choose_value<Kernels>(
      app.add_option("--kernels", options.kernels,
                     "fast: our own matmuls, which sum in another order; reference: openpi's operations one by one"),
      {{"fast", Kernels::fast}, {"reference", Kernels::reference}})
      ->default_str("fast");
  std::vector<std::pair<std::string, model::InstructionSet>> sets;
  for (const model::InstructionSet set : model::instruction_sets()) sets.emplace_back(name_of(set), set);
  choose_value(app.add_option("--instructions", options.instructions,
                              "Instruction set of the fast kernels; default: the one measured fastest at start"),
               sets);
  CLI::Option* keep = app.add_flag_callback(
      "--keep-masked", [&options] { options.masked = model::MaskedInputs::keep; },
      "Compute masked cameras and padded tokens and then ignore them, as openpi does and pi0-quant's "
      "statistics count them (default)");
  app.add_flag_callback(
         "--skip-masked", [&options] { options.masked = model::MaskedInputs::skip; },
         "Leave them out: the same actions up to rounding, with about half the work for two cameras")
      ->excludes(keep);
  app.add_option("--threads", options.threads, "CPU threads of the model; 0: libtorch's choice, on a GPU one")
      ->check(between(0, 1024))
      ->capture_default_str();
  app.add_option("--num-steps", options.num_steps, "Denoise steps; default: the checkpoint's, or 10")
      ->check(between(1, 1000));
  app.add_option("--seed", options.seed, "Of the noise (and of random weights); default: a random one, logged")
      ->check(whole());
}

model::ModelConfig chosen_sizes(const ModelOptions& options) { return sizes_of(read_choice(options)); }

std::string name_of(Kernels kernels) { return kernels == Kernels::fast ? "fast" : "reference"; }

at::Device chosen_device(const std::string& name) {
  const auto gpu_count = at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
  if (name == "auto") return gpu_count > 0 ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  if (name == "cpu") return at::kCPU;
  const std::string prefix = "cuda:";
  const std::string digits = name.starts_with(prefix) ? name.substr(prefix.size()) : "0";
  const bool is_index =
      !digits.empty() && digits.size() < 4 && digits.find_first_not_of("0123456789") == std::string::npos;
  if ((name != "cuda" && !name.starts_with(prefix)) || !is_index) {
    throw std::invalid_argument("device '" + name + "' is unknown; expected auto, cpu, cuda or cuda:N");
  }
  const int index = std::stoi(digits);
  if (index >= gpu_count) {
    throw std::invalid_argument(fmt::format("device '{}' does not exist: libtorch finds {}", name,
                                            counted(static_cast<std::size_t>(gpu_count), "GPU")));
  }
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

std::int64_t step_count(const ModelOptions& options, const model::ModelConfig& config) {
  return options.num_steps.value_or(config.num_steps);
}

std::shared_ptr<model::Pi0> load_model(const ModelOptions& options, const model::ModelConfig& config) {
  require_checkpoint(options);
  if (options.threads > 0) at::set_num_threads(options.threads);
  const model::Execution execution = chosen_execution(options);
  std::shared_ptr<model::Pi0> model;
  if (options.random_weights) {
    ByteCount count;
    const model::Pi0 shapes(config, count, options.precision, {});
    ShownRandomWeights weights(options.seed.value_or(0), count.bytes());
    model = std::make_shared<model::Pi0>(config, weights, options.precision, execution);
  } else {
    const model::CheckpointFolder folder = model::find_checkpoint(options.checkpoint_dir);
    Progress progress("loading " + folder.weights.string(), Progress::Unit::bytes);
    const auto checkpoint =
        model::open_checkpoint(folder, [&](std::uint64_t done, std::uint64_t total) { progress.update(done, total); });
    model = std::make_shared<model::Pi0>(config, *checkpoint, options.precision, execution);
    checkpoint->finish();
  }
  // On a GPU, the CPU's share of the work is too small for several threads.
  if (options.threads == 0 && !execution.device.is_cpu()) at::set_num_threads(1);
  keep_freed_memory();
  return model;
}

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

LoadedPolicy load_policy(PolicyParts parts, const ModelOptions& options, std::function<void(const std::string&)> warn) {
  ModelOptions seeded = options;
  if (!seeded.seed) seeded.seed = std::random_device{}();
  for (const std::string& warning : parts.warnings) warn(warning);
  const std::shared_ptr<model::Pi0> model = load_model(seeded, parts.sizes);
  const int threads = options.threads > 0 || model->device().is_cpu() ? options.threads : 1;
  const model::SampleOptions sampling{.masked = options.masked};
  const auto sample = [model, threads, sampling](const model::ModelInputs& inputs, const at::Tensor& noise,
                                                 std::int64_t steps) {
    if (threads > 0) at::set_num_threads(threads);  // OpenMP counts threads per calling thread
    return model->sample_actions(inputs, noise, steps, sampling);
  };
  auto policy = std::make_unique<policy::Policy>(
      std::move(parts.config), parts.norm_stats, std::move(parts.tokenizer), sample,
      policy::PolicyOptions{options.default_prompt, step_count(options, parts.sizes), *seeded.seed, std::move(warn),
                            options.masked, options.max_prompt_bytes});
  return {model, std::move(policy), sample, *seeded.seed};
}

}  // namespace pi0::tools
