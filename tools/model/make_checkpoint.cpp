// pi0 make-checkpoint: a checkpoint folder with random weights, statistics and a tokenizer, for trying
// out and timing. Its robot would move at random.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>

#include "model/weight_source.h"
#include "protocol/files.h"
#include "tools/common/commands.h"
#include "tools/common/model_options.h"
#include "tools/common/option_checks.h"
#include "tools/common/print.h"
#include "tools/common/stop_signals.h"
#include "tools/common/tiny_tokenizer.h"
#include "tools/model/checkpoint_writing.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

enum class Size { tiny, full };

struct MakeCheckpointOptions {
  fs::path output;
  std::string config = "pi05_droid";
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
std::string random_norm_stats(std::int64_t action_dim, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::uniform_real_distribution<double> distance(0.5, 2.5);
  nlohmann::ordered_json stats;
  for (const char* field : {"state", "actions"}) {
    nlohmann::ordered_json& entry = stats[field];
    for (std::int64_t i = 0; i < action_dim; ++i) {
      const double q01 = -distance(generator), q99 = distance(generator);
      entry["mean"].push_back((q01 + q99) / 2);
      entry["std"].push_back((q99 - q01) / 4);
      entry["q01"].push_back(q01);
      entry["q99"].push_back(q99);
    }
  }
  return nlohmann::ordered_json{{"norm_stats", stats}}.dump(1) + "\n";
}

void write_checkpoint(const MakeCheckpointOptions& options, const policy::PolicyConfig& policy,
                      const model::ModelConfig& config, const StopSignals& stop) {
  const fs::path assets = options.output / "assets" / policy.asset_id;
  fs::create_directories(assets);
  protocol::write_whole(assets / "norm_stats.json", random_norm_stats(config.action_dim, options.seed));
  protocol::write_whole(options.output / "paligemma_tokenizer.model", tiny_tokenizer());
  if (options.size == Size::tiny) {
    protocol::write_whole(options.output / "architecture.json", model::architecture_json(config));
  }
  const model::RandomWeights random(options.seed);
  const at::ScalarType stored = options.precision == model::Precision::bfloat16 ? at::kBFloat16 : at::kFloat;
  write_openpi_weights(
      options.output / "model.safetensors", config, [&](const std::string&) { return stored; },
      [&](const std::string& name, at::IntArrayRef shape, at::ScalarType dtype) {
        return random.draw(name, shape).to(dtype);
      },
      "make-checkpoint: tensors", stop);
}

void make_checkpoint(const MakeCheckpointOptions& options) {
  const policy::PolicyConfig policy = policy::policy_config(options.config);
  const model::ModelConfig config = sizes(options, policy);
  const StopSignals stop("make-checkpoint");
  fill_new_folder(options.output, [&] { write_checkpoint(options, policy, config, stop); });
  print("{}: a random checkpoint for --config {}\n", options.output.string(), options.config);
}

}  // namespace

void add_make_checkpoint(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("make-checkpoint", "Make a checkpoint with random weights, statistics and a tokenizer");
  command->footer("Example:\n  pi0 make-checkpoint --config pi05_droid --output random_droid");
  const auto options = std::make_shared<MakeCheckpointOptions>();
  command->add_option("--output", options->output, "Folder to make")->required();
  command->add_option("--config", options->config, "Policy it is for")->capture_default_str();
  choose_value<Size>(command->add_option("--size", options->size,
                                         "tiny runs in milliseconds; full has the real model's 3.6 B parameters"),
                     {{"tiny", Size::tiny}, {"full", Size::full}})
      ->default_str("tiny");
  command->add_option("--seed", options->seed, "Of weights and statistics")->check(whole())->capture_default_str();
  add_precision_option(*command, options->precision, "Format that weights are stored in");
  command->callback([options] { make_checkpoint(*options); });
}

}  // namespace pi0::tools
