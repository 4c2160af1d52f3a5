// pi0 make-checkpoint: a checkpoint folder with random weights, statistics and a tokenizer, for trying
// out and timing. Its robot would move at random.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <memory>
#include <random>
#include <stdexcept>

#include "model/checkpoint_folder.h"
#include "model/jax_writer.h"
#include "model/weight_source.h"
#include "protocol/files.h"
#include "tools/common/commands.h"
#include "tools/common/model_options.h"
#include "tools/common/option_checks.h"
#include "tools/common/print.h"
#include "tools/common/progress.h"
#include "tools/common/stop_signals.h"
#include "tools/common/tiny_tokenizer.h"
#include "tools/model/checkpoint_writing.h"
#include "tools/model/lerobot_writing.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

enum class Size { tiny, full };

struct MakeCheckpointOptions {
  fs::path output;
  std::string config = "pi05_droid";
  fs::path config_file;
  model::Layout layout = model::Layout::openpi;
  Size size = Size::tiny;
  std::uint64_t seed = 0;
  model::Precision precision = model::Precision::bfloat16;
};

model::ModelConfig sizes(const MakeCheckpointOptions& options, const policy::PolicyConfig& policy) {
  const model::ModelConfig full = policy::model_config(policy);
  if (options.size == Size::full) return full;
  model::ModelConfig tiny = model::tiny_config(full.pi05);
  tiny.action_dim = full.action_dim;
  tiny.action_horizon = full.action_horizon;
  tiny.max_token_len = full.max_token_len;
  return tiny;
}

// Percentiles about one unit from zero, as those of joint angles are.
policy::FieldStats random_stats(std::int64_t size, std::mt19937_64& generator) {
  std::uniform_real_distribution<double> distance(0.5, 2.5);
  policy::FieldStats stats;
  for (std::int64_t i = 0; i < size; ++i) {
    const double q01 = -distance(generator), q99 = distance(generator);
    stats.mean.push_back((q01 + q99) / 2);
    stats.std.push_back((q99 - q01) / 4);
    stats.q01.push_back(q01);
    stats.q99.push_back(q99);
  }
  return stats;
}

struct RandomCheckpoint {
  const MakeCheckpointOptions& options;
  policy::PolicyConfig policy;
  model::ModelConfig sizes;
  model::RandomWeights random;
  const StopSignals& stop;

  bool is_bfloat16() const { return options.precision == model::Precision::bfloat16; }

  void write_assets() const {
    std::mt19937_64 generator(options.seed);
    const policy::FieldStats state = random_stats(sizes.action_dim, generator);
    const policy::FieldStats actions = random_stats(sizes.action_dim, generator);
    const fs::path assets = options.output / "assets" / policy.asset_id;
    fs::create_directories(assets);
    protocol::write_whole(assets / "norm_stats.json", policy::norm_stats_json({state, actions, ""}));
    protocol::write_whole(options.output / "paligemma_tokenizer.model", tiny_tokenizer());
  }

  void write_safetensors(const std::string& prefix) const {
    const at::ScalarType stored = is_bfloat16() ? at::kBFloat16 : at::kFloat;
    write_openpi_weights(
        options.output / "model.safetensors", sizes, prefix, [&](const std::string&) { return stored; },
        [&](const std::string& name, at::IntArrayRef shape, at::ScalarType dtype) {
          return random.draw(name, shape).to(dtype);
        },
        "make-checkpoint: tensors", stop);
  }

  void write_jax() const {
    const auto write = [&](const std::string& path, const auto& content) {
      const fs::path file = options.output / "params" / path;
      fs::create_directories(file.parent_path());
      protocol::WholeFile whole(file);
      content([&](const void* data, std::size_t size) { whole.write(data, size); });
      whole.keep();
    };
    Progress progress("make-checkpoint: values", Progress::Unit::items);
    const std::uint64_t total = parameter_count(sizes);
    std::uint64_t done = 0;
    const auto draw = [&](const std::string& name, at::IntArrayRef shape) {
      stop.check();
      at::Tensor values = random.draw(name, shape);
      progress.update(done += static_cast<std::uint64_t>(values.numel()), total);
      return values;
    };
    model::write_jax_params(write, sizes, draw,
                            {.dtype = is_bfloat16() ? orbax::DType::bfloat16 : orbax::DType::float32});
  }

  void write_lerobot() const {
    std::mt19937_64 generator(options.seed);
    const policy::FieldStats state = random_stats(policy.robot.state_size(), generator);
    const policy::FieldStats actions = random_stats(policy.robot.action_size, generator);
    write_lerobot_files(options.output, policy, {state, actions, ""});
    write_safetensors("model.");
  }

  void write() const {
    if (options.size == Size::tiny) {
      protocol::write_whole(options.output / "architecture.json", model::architecture_json(sizes));
    }
    if (options.layout == model::Layout::lerobot) return write_lerobot();
    write_assets();
    if (options.layout == model::Layout::jax) return write_jax();
    write_safetensors("");
  }
};

void make_checkpoint(const MakeCheckpointOptions& options) {
  const policy::PolicyConfig policy = options.config_file.empty() ? policy::policy_config(options.config)
                                                                  : policy::read_policy_config(options.config_file);
  const StopSignals stop("make-checkpoint");
  const RandomCheckpoint checkpoint{options, policy, sizes(options, policy), model::RandomWeights(options.seed), stop};
  fill_new_folder(options.output, [&] { checkpoint.write(); });
  print("{}: a random checkpoint for {}\n", options.output.string(),
        options.layout == model::Layout::lerobot ? "LeRobot's " + std::string(policy.pi05 ? "pi05" : "pi0")
        : options.config_file.empty()            ? "--config " + options.config
                                                 : "--config-file " + options.config_file.string());
}

}  // namespace

void add_make_checkpoint(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("make-checkpoint", "Make a checkpoint with random weights, statistics and a tokenizer");
  command->footer("Example:\n  pi0 make-checkpoint --config pi05_droid --output random_droid");
  const auto options = std::make_shared<MakeCheckpointOptions>();
  command->add_option("--output", options->output, "Folder to make")->required();
  CLI::Option* config = command->add_option("--config", options->config, "Policy it is for")->capture_default_str();
  command->add_option("--config-file", options->config_file, "Policy of your own that it is for (configs/README.md)")
      ->check(CLI::ExistingFile)
      ->excludes(config);
  choose_value<model::Layout>(
      command->add_option("--layout", options->layout,
                          "How it is stored: openpi's PyTorch folder, openpi's JAX parameters, or LeRobot's folder"),
      {{"openpi", model::Layout::openpi}, {"jax", model::Layout::jax}, {"lerobot", model::Layout::lerobot}})
      ->default_str("openpi");
  choose_value<Size>(command->add_option("--size", options->size,
                                         "tiny runs in milliseconds; full has the real model's 3.6 B parameters"),
                     {{"tiny", Size::tiny}, {"full", Size::full}})
      ->default_str("tiny");
  command->add_option("--seed", options->seed, "Of weights and statistics")->check(whole())->capture_default_str();
  add_precision_option(*command, options->precision, "Format that weights are stored in");
  command->callback([options] { make_checkpoint(*options); });
}

}  // namespace pi0::tools
