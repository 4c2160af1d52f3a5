// The options of every program that runs a model, and loading a model with them.
#pragma once

#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/backends/cpu/gemm.h"
#include "model/checkpoint_folder.h"
#include "model/model_config.h"
#include "model/pi0.h"
#include "model/policy/lerobot_folder.h"
#include "model/policy/policy.h"
#include "model/policy/policy_config.h"

namespace pi0::tools {

enum class Kernels {
  reference,  // openpi's operations, one by one
  fast        // the same function in less time
};
std::string name_of(Kernels kernels);  // as on the command line

struct ModelOptions {
  std::string config;                 // name of a policy
  std::filesystem::path config_file;  // or a user's own policy
  std::filesystem::path checkpoint_dir;
  std::optional<policy::LeRobotVersion> lerobot_version;  // of a LeRobot folder; none: 0.5 and later
  bool random_weights = false;
  bool allow_lost_lora = false;  // serve weights whose converter dropped their adapters
  std::filesystem::path tokenizer;
  std::optional<std::string> default_prompt;
  std::size_t max_prompt_bytes = policy::PolicyOptions{}.max_prompt_bytes;
  std::string device = "auto";
  model::Precision precision = model::Precision::bfloat16;
  Kernels kernels = Kernels::fast;
  std::optional<model::InstructionSet> instructions;  // of the fast kernels; none: the fastest here
  model::MaskedInputs masked = model::MaskedInputs::keep;
  int threads = 0;                        // 0: libtorch's default
  std::optional<std::int64_t> num_steps;  // none: the checkpoint's
  std::optional<std::uint64_t> seed;      // none: a random one
};

// A policy's definition beside the weights, as pi0 convert writes it for policies that are none of openpi's.
inline constexpr const char* policy_file_name = "policy.json";

// These add options to `app`; `options` must outlive it.
void add_place_options(CLI::App& app, ModelOptions& options);  // which policy, which checkpoint
void add_model_options(CLI::App& app, ModelOptions& options);  // the rest
void add_lost_lora_option(CLI::App& app, bool& allowed);
CLI::Option* add_lerobot_version_option(CLI::App& app, std::optional<policy::LeRobotVersion>& version);
CLI::Option* add_precision_option(CLI::App& app, model::Precision& precision, const std::string& description);

// A folder that openpi's converter made of a LoRA training holds the base weights alone: the converter drops adapters
// without a word. Throws model::CheckpointError for such a folder; if it is allowed, returns a line for the log.
std::string check_lora(const model::CheckpointFolder& checkpoint, bool allowed);

// Replaces a bucket address (gs://...) by its copy in openpi's download cache, if there is one.
CLI::Validator or_cached();

// The sizes of architecture.json, checked against the policy if there is one; without the file, those
// of the policy's variants. Throws std::invalid_argument when there is neither.
model::ModelConfig chosen_sizes(const ModelOptions& options);

at::Device chosen_device(const std::string& name);  // throws when there is no such GPU

// Denoise steps per request: --num-steps, else the checkpoint's.
std::int64_t step_count(const ModelOptions& options, const model::ModelConfig& config);

// Loads the weights with progress on stderr and sets libtorch's thread count.
std::shared_ptr<model::Pi0> load_model(const ModelOptions& options, const model::ModelConfig& config);

// Everything that a policy needs besides weights. It is quick to load, so errors show before the weights are read.
struct PolicyParts {
  policy::PolicyConfig config;
  model::ModelConfig sizes;
  policy::NormStats norm_stats;
  policy::PromptTokenizer tokenizer;
  std::vector<std::string> warnings = {};  // for the log
};
PolicyParts load_parts(const ModelOptions& options);

struct LoadedPolicy {
  std::shared_ptr<model::Pi0> model;  // the policy's, for hooks
  std::unique_ptr<policy::Policy> policy;
  policy::SampleActions sample_actions;  // as the policy calls the model
  std::uint64_t seed;                    // that of `options`, or the one that was drawn
};

// The parts and the weights. `warn` gets lines for the log.
LoadedPolicy load_policy(PolicyParts parts, const ModelOptions& options, std::function<void(const std::string&)> warn);

}  // namespace pi0::tools
