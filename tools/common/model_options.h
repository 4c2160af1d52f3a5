// The options of every program that runs a model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "model/backends/cpu/gemm.h"
#include "model/model_config.h"
#include "model/pi0.h"
#include "model/policy/lerobot_folder.h"
#include "model/policy/policy.h"
#include "tools/common/cli_fwd.h"

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
  policy::RequestLimits limits;
  bool allow_image_wrap = false;  // take images of floats outside [0, 1], as openpi does
  std::string device = "auto";
  model::Precision precision = model::Precision::bfloat16;
  Kernels kernels = Kernels::fast;
  std::optional<model::InstructionSet> instructions;  // of the fast kernels; none: the fastest here
  model::MaskedInputs masked = model::MaskedInputs::keep;
  int threads = 0;                        // 0: as many as fit, see run_program()
  std::optional<std::int64_t> num_steps;  // none: the checkpoint's
  std::optional<std::uint64_t> seed;      // none: a random one
};

// These add options to `app`; `options` must outlive it.
void add_place_options(CLI::App& app, ModelOptions& options);  // which policy, which checkpoint
void add_model_options(CLI::App& app, ModelOptions& options);  // the rest
void add_lost_lora_option(CLI::App& app, bool& allowed);
CLI::Option* add_lerobot_version_option(CLI::App& app, std::optional<policy::LeRobotVersion>& version);
CLI::Option* add_precision_option(CLI::App& app, model::Precision& precision, const std::string& description);

// Replaces a bucket address (gs://...) by its copy in openpi's download cache, if there is one.
CLI::Validator or_cached();

// Denoise steps per request: --num-steps, else the checkpoint's.
std::int64_t step_count(const ModelOptions& options, const model::ModelConfig& config);

// Throws std::invalid_argument without --checkpoint-dir and --random-weights.
void require_checkpoint(const ModelOptions& options);

}  // namespace pi0::tools
