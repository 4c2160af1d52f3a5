#include "tools/common/model_options.h"

#include <CLI/CLI.hpp>
#include <stdexcept>

#include "tools/common/option_checks.h"

namespace pi0::tools {

CLI::Validator or_cached() {
  const auto replace = [](std::string& place) {
    const std::string scheme = "gs://";
    if (!place.starts_with(scheme)) return std::string();
    const std::filesystem::path copy = policy::openpi_data_home() / place.substr(scheme.size());
    if (std::filesystem::exists(copy)) place = copy.string();
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
  app.add_flag("--allow-image-wrap", options.allow_image_wrap,
               "Take images of floats outside [0, 1] and let them wrap around to other colours, as openpi does; "
               "LeRobot's policies refuse them all the same");
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
  app.add_option("--threads", options.threads,
                 "CPU threads of the model; 0: as many as the cores that affinity mask and CPU quota "
                 "(cgroups) leave, on a GPU one")
      ->check(between(0, 1024))
      ->capture_default_str();
  app.add_option("--num-steps", options.num_steps, "Denoise steps; default: the checkpoint's, or 10")
      ->check(between(1, 1000));
  app.add_option("--seed", options.seed, "Of the noise (and of random weights); default: a random one, logged")
      ->check(whole());
}

std::string name_of(Kernels kernels) { return kernels == Kernels::fast ? "fast" : "reference"; }

std::int64_t step_count(const ModelOptions& options, const model::ModelConfig& config) {
  return options.num_steps.value_or(config.num_steps);
}

void require_checkpoint(const ModelOptions& options) {
  if (!options.checkpoint_dir.empty() || options.random_weights) return;
  throw std::invalid_argument("no checkpoint: give --checkpoint-dir, or --random-weights to try out");
}

}  // namespace pi0::tools
