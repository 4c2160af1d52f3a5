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

policy::NormStats load_stats(const ModelOptions& options, const policy::PolicyConfig& policy) {
  if (options.checkpoint_dir.empty()) return identity_stats(policy.action_dim);
  return policy::read_norm_stats(policy::norm_stats_file(options.checkpoint_dir, policy.asset_id));
}

// The folder of --checkpoint-dir if it is LeRobot's and no other policy is chosen.
std::optional<policy::LeRobotFolder> lerobot_folder(const ModelOptions& options) {
  if (!options.config.empty() || !options.config_file.empty()) return std::nullopt;
  if (!options.checkpoint_dir.empty() && policy::is_lerobot_folder(options.checkpoint_dir)) {
    return policy::read_lerobot_folder(options.checkpoint_dir,
                                       options.lerobot_version.value_or(policy::LeRobotVersion::v0_5));
  }
  if (!options.lerobot_version) return std::nullopt;
  throw std::invalid_argument("--lerobot-version needs a LeRobot checkpoint, but '" + options.checkpoint_dir.string() +
                              "' has no config.json with a policy's \"type\"");
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

fs::path tokenizer_file(const ModelOptions& options, const std::optional<policy::LeRobotFolder>& lerobot,
                        std::vector<std::string>& warnings) {
  if (!options.tokenizer.empty()) return options.tokenizer;
  return lerobot ? lerobot_tokenizer(*lerobot, options.checkpoint_dir, warnings)
                 : policy::find_tokenizer(options.checkpoint_dir);
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
  if (options.checkpoint_dir.empty() && !options.random_weights) {
    throw std::invalid_argument("no checkpoint: give --checkpoint-dir, or --random-weights to try out");
  }
  const std::string place = options.checkpoint_dir.string();
  if (place.find(":/") == std::string::npos) return;
  throw std::invalid_argument(place + ": is a bucket address, expected a folder; " +
                              how_to_get(place, options.config.empty() ? "NAME" : options.config));
}

}  // namespace

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

std::string how_to_get(const std::string& address, const std::string& config) {
  return "download it with 'gsutil -m cp -r " + address +
         " JAX_DIR', convert it with openpi's "
         "'examples/convert_jax_model_to_pytorch.py --checkpoint_dir JAX_DIR --config_name " +
         config + " --output_path DIR', copy JAX_DIR/assets into DIR, and give --checkpoint-dir DIR";
}

CLI::Option* add_precision_option(CLI::App& app, model::Precision& precision, const std::string& description) {
  return choose_value<model::Precision>(
             app.add_option("--precision", precision, description),
             {{"bfloat16", model::Precision::bfloat16}, {"float32", model::Precision::float32}})
      ->default_str("bfloat16");
}

void add_place_options(CLI::App& app, ModelOptions& options) {
  CLI::Option* config = app.add_option("--config", options.config, "Policy by openpi's name, as pi05_droid");
  CLI::Option* config_file =
      app.add_option("--config-file", options.config_file, "Policy of your own (configs/README.md)")
          ->check(CLI::ExistingFile)
          ->excludes(config);
  app.add_option("--checkpoint-dir", options.checkpoint_dir,
                 "Folder with model.safetensors and assets/, or gs:// address of one in openpi's download cache, or "
                 "folder of a LeRobot policy, which needs no --config")
      ->transform(or_cached());
  choose_value<policy::LeRobotVersion>(
      app.add_option("--lerobot-version", options.lerobot_version,
                     "LeRobot that trained the policy, which its files do not tell; default: 0.5, and later"),
      {{"0.4", policy::LeRobotVersion::v0_4}, {"0.5", policy::LeRobotVersion::v0_5}})
      ->excludes(config)
      ->excludes(config_file);
}

void add_model_options(CLI::App& app, ModelOptions& options) {
  app.add_flag("--random-weights", options.random_weights,
               "Random weights instead of the checkpoint's, for trying out and timing");
  app.add_option("--tokenizer", options.tokenizer,
                 "SentencePiece model; default: paligemma_tokenizer.model in the checkpoint, then in "
                 "$OPENPI_DATA_HOME/big_vision")
      ->check(CLI::ExistingFile);
  app.add_option_function<std::string>(
      "--default-prompt",
      [&options](const std::string& prompt) {
        if (prompt != "None") options.default_prompt = prompt;  // openpi's word for none
      },
      "For requests without a prompt");
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

std::optional<policy::PolicyConfig> chosen_policy(const ModelOptions& options) {
  if (const auto lerobot = lerobot_folder(options)) return lerobot->policy;
  std::optional<policy::PolicyConfig> policy;
  if (!options.config_file.empty()) policy = policy::read_policy_config(options.config_file);
  if (!options.config.empty()) policy = policy::policy_config(options.config);
  if (policy && !options.checkpoint_dir.empty() && policy::is_lerobot_folder(options.checkpoint_dir)) {
    policy::check_lerobot_model(*policy, options.checkpoint_dir);
  }
  return policy;
}

model::ModelConfig chosen_sizes(const ModelOptions& options) {
  const std::optional<policy::LeRobotFolder> lerobot = lerobot_folder(options);
  const std::optional<policy::PolicyConfig> policy = lerobot ? lerobot->policy : chosen_policy(options);
  const fs::path architecture = options.checkpoint_dir / "architecture.json";
  const bool has_architecture = !options.checkpoint_dir.empty() && fs::exists(architecture);
  if (!policy && !has_architecture) {
    throw std::invalid_argument(
        "the model's sizes are unknown: give --config, or a --checkpoint-dir with architecture.json");
  }
  model::ModelConfig sizes = has_architecture ? model::read_architecture(architecture) : policy::model_config(*policy);
  if (policy && has_architecture) policy::check_architecture(*policy, sizes, architecture.string());
  if (lerobot) sizes.num_steps = lerobot->num_steps;
  return sizes;
}

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
    throw std::invalid_argument(
        fmt::format("device '{}' is not there: this machine shows {} GPUs to "
                    "this build of libtorch",
                    name, gpu_count));
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
    Progress progress("loading " + options.checkpoint_dir.string(), Progress::Unit::bytes);
    model::Checkpoint checkpoint(options.checkpoint_dir,
                                 [&](std::uint64_t done, std::uint64_t total) { progress.update(done, total); });
    model = std::make_shared<model::Pi0>(config, checkpoint, options.precision, execution);
    checkpoint.finish();
  }
  // On a GPU, the CPU's share of the work is too small for several threads.
  if (options.threads == 0 && !execution.device.is_cpu()) at::set_num_threads(1);
  keep_freed_memory();
  return model;
}

PolicyParts load_parts(const ModelOptions& options) {
  require_checkpoint(options);
  const std::optional<policy::LeRobotFolder> lerobot = lerobot_folder(options);
  std::optional<policy::PolicyConfig> config = lerobot ? lerobot->policy : chosen_policy(options);
  if (!config) throw std::invalid_argument("no policy: give --config or --config-file, or a LeRobot checkpoint");
  const model::ModelConfig sizes = chosen_sizes(options);
  policy::NormStats stats = lerobot ? lerobot->norm_stats : load_stats(options, *config);
  std::vector<std::string> warnings = lerobot ? lerobot->warnings : std::vector<std::string>();
  const bool is_random = options.tokenizer.empty() && options.checkpoint_dir.empty();
  auto tokenizer =
      is_random ? policy::PromptTokenizer(tiny_tokenizer(), "the tokenizer of random checkpoints", sizes.vocab_size)
                : policy::PromptTokenizer::from_file(tokenizer_file(options, lerobot, warnings), sizes.vocab_size);
  return {std::move(*config), sizes, std::move(stats), std::move(tokenizer), std::move(warnings)};
}

LoadedPolicy load_policy(PolicyParts parts, const ModelOptions& options, std::function<void(const std::string&)> warn) {
  for (const std::string& line : parts.warnings) warn(line);
  ModelOptions seeded = options;
  if (!seeded.seed) seeded.seed = std::random_device{}();
  const std::shared_ptr<model::Pi0> model = load_model(seeded, parts.sizes);
  const int threads = options.threads > 0 || model->device().is_cpu() ? options.threads : 1;
  const model::SampleOptions sampling{.masked = options.masked};
  const auto sample = [model, threads, sampling](const model::ModelInputs& inputs, const at::Tensor& noise,
                                                 std::int64_t steps) {
    if (threads > 0) at::set_num_threads(threads);  // OpenMP counts threads per calling thread
    return model->sample_actions(inputs, noise, steps, sampling);
  };
  auto policy = std::make_unique<policy::Policy>(
      std::move(parts.config), std::move(parts.norm_stats), std::move(parts.tokenizer), sample,
      policy::PolicyOptions{options.default_prompt, step_count(options, parts.sizes), *seeded.seed, std::move(warn),
                            options.masked, options.max_prompt_bytes});
  return {model, std::move(policy), sample, *seeded.seed};
}

}  // namespace pi0::tools
