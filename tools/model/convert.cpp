// pi0 convert: any checkpoint that is read as one folder of openpi's PyTorch layout.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/checkpoint_folder.h"
#include "model/policy/lerobot_folder.h"
#include "model/policy/norm_stats.h"
#include "model/policy/policy_config.h"
#include "model/rounding.h"
#include "protocol/files.h"
#include "tools/common/commands.h"
#include "tools/common/model_options.h"
#include "tools/common/option_checks.h"
#include "tools/common/policy_parts.h"
#include "tools/common/print.h"
#include "tools/model/checkpoint_writing.h"
#include "tools/model/stored_model.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

struct ConvertOptions {
  fs::path checkpoint;
  fs::path output;
  model::Precision precision = model::Precision::float32;
  bool packed = false;
  std::vector<std::string> weight_formats = {};  // of packed weights
  std::optional<policy::LeRobotVersion> lerobot_version;
  bool allow_lost_lora = false;
};

// Plain casts that change values of bfloat16.
std::vector<std::string> rounding_formats() {
  std::vector<std::string> names;
  for (const formats::Format format : formats::all_formats) {
    if (!model::keeps(format, at::kBFloat16)) names.emplace_back(name_of(format));
  }
  return names;
}

// What openpi's converter writes there. LoRA adapters are part of the weights now.
std::string config_json(const model::CheckpointFolder& folder, const model::ModelConfig& sizes,
                        model::Precision precision) {
  nlohmann::ordered_json config;
  config["action_dim"] = sizes.action_dim;
  if (const std::int64_t horizon = stored_horizon(folder); horizon > 0) config["action_horizon"] = horizon;
  if (!fs::exists(folder.root / "architecture.json")) {
    for (const auto& [key, standard] :
         {std::pair("paligemma_variant", "gemma_2b"), std::pair("action_expert_variant", "gemma_300m")}) {
      config[key] = model::without_lora(stored_text(folder, key, standard));
    }
  }
  config["precision"] = precision == model::Precision::float32 ? "float32" : "bfloat16";
  return config.dump(2) + "\n";
}

// LeRobot's files become a policy's definition, which programs find as policy.json, and openpi's statistics.
void write_lerobot_policy(const policy::LeRobotFolder& lerobot, const fs::path& output) {
  policy::PolicyConfig policy = lerobot.policy;
  policy.asset_id = "lerobot";
  const fs::path assets = output / "assets" / policy.asset_id;
  fs::create_directories(assets);
  protocol::write_whole(output / policy_file_name, policy::policy_json(policy));
  protocol::write_whole(assets / "norm_stats.json", policy::norm_stats_json(lerobot.norm_stats));
  if (!lerobot.tokenizer.empty()) fs::copy_file(lerobot.tokenizer, output / "paligemma_tokenizer.model");
}

void copy_beside(const model::CheckpointFolder& folder, const fs::path& output) {
  if (fs::exists(folder.root / "assets")) {
    fs::copy(folder.root / "assets", output / "assets", fs::copy_options::recursive);
  }
  for (const char* name : {"paligemma_tokenizer.model", "architecture.json", policy_file_name}) {
    if (fs::exists(folder.root / name)) fs::copy_file(folder.root / name, output / name);
  }
}

void check_places(const ConvertOptions& options, const model::CheckpointFolder& folder) {
  const auto inside = fs::weakly_canonical(options.output).lexically_relative(fs::canonical(folder.root));
  if (!inside.empty() && *inside.begin() != "..") {
    throw std::runtime_error(options.output.string() + ": lies in the checkpoint " + folder.root.string() +
                             ", expected another place");
  }
  if (options.lerobot_version && folder.layout != model::Layout::lerobot) {
    throw std::runtime_error("--lerobot-version needs a LeRobot checkpoint, but " + folder.weights.string() + " is " +
                             name_of(folder.layout));
  }
}

std::optional<Packed> packed_as(const ConvertOptions& options) {
  if (!options.packed) return std::nullopt;
  Packed packed;
  for (const std::string& name : options.weight_formats) {
    const formats::Format format = *formats::find_format(name);
    if (std::ranges::find(packed.formats, format) != packed.formats.end()) {
      throw std::runtime_error("--weight-fmts: found " + name + " twice, expected each format once");
    }
    packed.formats.push_back(format);
  }
  return packed;
}

void convert(const ConvertOptions& options) {
  const std::optional<Packed> packed = packed_as(options);
  const model::CheckpointFolder folder = model::find_checkpoint(options.checkpoint);
  check_places(options, folder);
  const std::string lost = check_lora(folder, options.allow_lost_lora);
  if (!lost.empty()) print(stderr, "{}\n", lost);
  const auto checkpoint = model::open_checkpoint(folder);
  const model::ModelConfig sizes = stored_model(folder, *checkpoint);
  std::set<std::string> names;
  for (const model::CheckpointSource::Stored& stored : checkpoint->stored()) names.insert(stored.name);

  // A parameter that openpi rounds when it loads may be stored rounded: the same bits reach the model.
  const auto dtype = [&](const std::string& name) { return model::storage_of(name, options.precision).rounding; };
  const auto read = [&](const std::string& name, at::IntArrayRef shape, at::ScalarType stored) {
    // openpi's load_model wants a head of the action expert, which nothing reads and JAX does not have.
    const std::string unread = "paligemma_with_expert.gemma_expert.lm_head.weight";
    if (name == unread && !names.contains(name)) return at::zeros(shape, stored);
    if (name == model::embedding_name) checkpoint->pass_over(model::embedding_alias, shape);  // LeRobot has both
    return checkpoint->load(name, shape, {stored, stored});
  };
  const StopSignals stop("convert");
  std::optional<policy::LeRobotFolder> lerobot;
  if (folder.layout == model::Layout::lerobot)
    lerobot = policy::read_lerobot_folder(folder.root, options.lerobot_version.value_or(policy::LeRobotVersion::v0_5));
  fill_new_folder(options.output, [&] {
    if (lerobot) write_lerobot_policy(*lerobot, options.output);
    copy_beside(folder, options.output);
    protocol::write_whole(options.output / "config.json", config_json(folder, sizes, options.precision));
    write_openpi_weights(options.output / "model.safetensors", sizes, /*prefix=*/"", dtype, read, "convert: tensors",
                         stop, packed);
    checkpoint->finish();
  });
  print("{}: {} in {}, from {} ({})\n", options.output.string(), sizes.pi05 ? "Pi0.5" : "Pi0",
        options.packed ? "the CPU kernels' layout" : "openpi's PyTorch layout", folder.weights.string(),
        name_of(folder.layout));
}

}  // namespace

void add_convert(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "convert", "Write any checkpoint as one folder of openpi's PyTorch layout, or packed to start fastest");
  command->footer("Example:\n  pi0 convert ~/.cache/openpi/openpi-assets/checkpoints/pi05_droid pi05_droid_pytorch");
  const auto options = std::make_shared<ConvertOptions>();
  command->add_option("checkpoint", options->checkpoint, "Checkpoint of openpi, PyTorch or JAX, or of LeRobot")
      ->transform(or_cached())
      ->required();
  command->add_option("output", options->output, "Folder to make")->required();
  CLI::Option* precision =
      add_precision_option(
          *command, options->precision,
          "float32 holds any checkpoint exactly; bfloat16 is half the size, for serving with --precision "
          "bfloat16: parameters that openpi keeps in float32 stay so")
          ->default_str("float32");
  add_lost_lora_option(*command, options->allow_lost_lora);
  add_lerobot_version_option(*command, options->lerobot_version);
  CLI::Option* packed =
      command->add_flag("--packed", options->packed,
                        "Weights as the CPU's kernels read them: mapped at start instead of packed. For this program "
                        "only; --precision is then bfloat16 unless given");
  choose(command->add_option("--weight-fmts", options->weight_formats,
                             "Plain casts that packed weights are stored rounded to as well"),
         rounding_formats())
      ->needs(packed)
      ->delimiter(',')
      ->allow_extra_args(false);
  command->callback([=] {
    if (options->packed && precision->count() == 0) options->precision = model::Precision::bfloat16;
    convert(*options);
  });
}

}  // namespace pi0::tools
