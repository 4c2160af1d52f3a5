// pi0 inspect: what a checkpoint is and how it would be served. Reads no weights.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/checkpoint_folder.h"
#include "model/packed_file.h"
#include "model/policy/lerobot_folder.h"
#include "tools/common/commands.h"
#include "tools/common/model_options.h"
#include "tools/common/policy_parts.h"
#include "tools/common/print.h"
#include "tools/common/results.h"
#include "tools/common/shell_word.h"
#include "tools/model/stored_model.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// "gemma_2b", or the sizes of a model that is none of openpi's.
std::string variant_text(const model::GemmaConfig& sizes) {
  for (const char* name : {"gemma_2b", "gemma_300m"}) {
    if (sizes == model::gemma_variant(name)) return name;
  }
  return fmt::format("{} layers of width {}", sizes.depth, sizes.width);
}

// Stands for the policy that a checkpoint's own files describe, which needs no --config.
constexpr const char* own_policy = "none needed: the checkpoint describes its policy";

struct Weights {
  std::size_t tensors = 0;
  std::int64_t values = 0;
  std::map<std::string, std::int64_t> values_of_dtype;
  std::map<std::string, std::int64_t> lora_ranks;  // "paligemma", "action_expert"
};

Weights weights_of(const model::CheckpointSource& checkpoint) {
  Weights weights;
  for (const model::CheckpointSource::Stored& stored : checkpoint.stored()) {
    const std::int64_t values =
        std::accumulate(stored.shape.begin(), stored.shape.end(), std::int64_t{1}, std::multiplies<>());
    ++weights.tensors;
    weights.values += values;
    weights.values_of_dtype[stored.dtype] += values;
    // The second Gemma's arrays have the ending _1: attn/q_einsum_1/lora_a, mlp_1/gating_einsum_lora_a.
    if (stored.name.ends_with("lora_a") && !stored.shape.empty()) {
      const bool is_expert = stored.name.find("_1/") != std::string::npos;
      weights.lora_ranks[is_expert ? "action_expert" : "paligemma"] = stored.shape.back();
    }
  }
  return weights;
}

// The least and the largest value of those that are numbers; null where there are none.
Json range_of(std::vector<double> low, std::vector<double> high) {
  for (std::vector<double>* values : {&low, &high}) std::erase_if(*values, [](double x) { return std::isnan(x); });
  if (low.empty() || high.empty()) return nullptr;
  return {*std::ranges::min_element(low), *std::ranges::max_element(high)};
}

Json statistics_of(const policy::NormStats& stats) {
  Json entry;
  for (const auto& [name, field] : {std::pair("state", &stats.state), std::pair("actions", &stats.actions)}) {
    entry[name] = {{"size", std::max(field->mean.size(), field->q01.size())},
                   {"mean", range_of(field->mean, field->mean)},
                   {"std", range_of(field->std, field->std)},
                   {"q01_q99", range_of(field->q01, field->q99)}};
  }
  return entry;
}

Json statistics_of(const fs::path& root, const std::string& asset_id) {
  Json entry = {{"asset_id", asset_id}};
  try {
    entry.update(statistics_of(policy::read_norm_stats(policy::norm_stats_file(root, asset_id))));
  } catch (const policy::NormStatsError& error) {
    entry["error"] = error.what();
  }
  return entry;
}

// A LeRobot folder's own statistics and tokenizer. Nothing, where the folder cannot be served: then `not_served` says
// why.
void add_lerobot(const fs::path& folder, Json& facts) {
  try {
    const policy::LeRobotFolder lerobot = policy::read_lerobot_folder(folder);
    Json entry = {{"asset_id", "LeRobot's processors"}};
    entry.update(statistics_of(lerobot.norm_stats));
    facts["statistics"].push_back(std::move(entry));
    if (!lerobot.tokenizer.empty()) facts["tokenizer"] = lerobot.tokenizer.string();
  } catch (const std::exception&) {
  }
}

// The policies of openpi that this checkpoint may be of.
std::vector<std::string> fitting_policies(const model::CheckpointFolder& folder, const model::ModelConfig& sizes,
                                          const std::vector<std::string>& asset_ids) {
  const std::int64_t horizon = stored_horizon(folder);
  std::vector<std::string> names;
  for (const std::string& name : policy::policy_names()) {
    const policy::PolicyConfig policy = policy::policy_config(name);
    const bool is_same_model = policy.pi05 == sizes.pi05 && policy.action_dim == sizes.action_dim;
    const bool has_statistics = std::ranges::find(asset_ids, policy.asset_id) != asset_ids.end();
    if (is_same_model && has_statistics && (horizon == 0 || policy.action_horizon == horizon)) names.push_back(name);
  }
  return names;
}

// The formats that weights in the CPU kernels' layout are rounded to as well; null for any other checkpoint.
Json packed_formats(const model::CheckpointFolder& folder) {
  const fs::path file = folder.weights / model::safetensors_name;
  if (!fs::exists(file)) return nullptr;
  const model::PackedFile weights{model::SafetensorsFile(file)};
  if (weights.tensors() == nullptr) return nullptr;
  Json names = Json::array();
  for (const formats::Format format : weights.rounded_formats()) names.push_back(formats::name_of(format));
  return names;
}

// Why `options` cannot be served, without reading weights; empty if they can.
std::string obstacle(const ModelOptions& options) {
  try {
    load_parts(options);
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

Json facts_of(const fs::path& place) {
  const model::CheckpointFolder folder = model::find_checkpoint(place);
  const auto checkpoint = model::open_checkpoint(folder);
  const model::ModelConfig sizes = stored_model(folder, *checkpoint);
  const Weights weights = weights_of(*checkpoint);
  const std::vector<std::string> ids = policy::asset_ids(folder.root);

  Json facts;
  facts["checkpoint"] = place.string();
  facts["layout"] = name_of(folder.layout);
  facts["weights"] = folder.weights.string();
  facts["packed"] = packed_formats(folder);
  facts["model"] = sizes.pi05 ? "Pi0.5" : "Pi0";
  facts["paligemma"] = variant_text(sizes.paligemma);
  facts["action_expert"] = variant_text(sizes.action_expert);
  facts["tensors"] = weights.tensors;
  facts["parameters"] = weights.values;
  for (const auto& [dtype, values] : weights.values_of_dtype) facts["parameters_of_dtype"][dtype] = values;
  facts["lora_ranks"] = weights.lora_ranks;
  facts["action_dim"] = sizes.action_dim;
  const std::int64_t horizon = stored_horizon(folder);
  facts["action_horizon"] = horizon > 0 ? Json(horizon) : Json();
  facts["statistics"] = Json::array();
  for (const std::string& id : ids) facts["statistics"].push_back(statistics_of(folder.root, id));
  try {
    facts["tokenizer"] = policy::find_tokenizer(folder.root).string();
  } catch (const policy::TokenizerError&) {
    facts["tokenizer"] = nullptr;
  }

  if (folder.layout == model::Layout::lerobot) add_lerobot(folder.root, facts);

  ModelOptions options;
  options.checkpoint_dir = place;
  const bool has_policy = folder.layout == model::Layout::lerobot || fs::exists(folder.root / policy_file_name);
  facts["configs"] = has_policy ? std::vector<std::string>{own_policy} : fitting_policies(folder, sizes, ids);
  facts["served"] = Json::array();
  facts["not_served"] = Json::object();
  const auto try_serving = [&](const std::string& config) {
    options.config = config == own_policy ? "" : config;
    const std::string why = obstacle(options);
    if (why.empty()) {
      facts["served"].push_back(config);
    } else {
      facts["not_served"][config] = why;
    }
  };
  for (const Json& config : facts["configs"]) try_serving(config.get<std::string>());
  return facts;
}

std::string millions(std::int64_t values) {
  return fmt::format("{:.{}f} million", static_cast<double>(values) / 1e6, values < 10'000'000 ? 2 : 0);
}

std::string listed(const Json& texts) {
  std::string list;
  for (const Json& text : texts) list += (list.empty() ? "" : ", ") + text.get<std::string>();
  return list;
}

std::string range_text(const Json& range, const char* format) {
  return range.is_null() ? "" : fmt::format(fmt::runtime(format), range[0].get<double>(), range[1].get<double>());
}

void print_statistics(const Json& entry) {
  const std::string id = entry["asset_id"].get<std::string>();
  if (entry.contains("error")) return print("statistics   {}\n", entry["error"].get<std::string>());
  std::string line;
  for (const char* field : {"state", "actions"}) {
    const Json& stats = entry[field];
    line += fmt::format("; {}: {} values{}{}", field, stats["size"].get<std::size_t>(),
                        range_text(stats["mean"], ", mean {:.3g} to {:.3g}"),
                        range_text(stats["q01_q99"], ", percentiles 1 to 99 {:.3g} to {:.3g}"));
  }
  print("statistics   {}{}\n", id, line);
}

void print_facts(const Json& facts) {
  const auto text = [&](const char* key) { return facts[key].get<std::string>(); };
  print("checkpoint   {}: {}\n", text("checkpoint"), text("layout"));
  if (!facts["packed"].is_null()) {
    print("packed       in the CPU kernels' layout{}\n",
          facts["packed"].empty() ? "" : ", rounded to " + listed(facts["packed"]) + " as well");
  }
  print("model        {}: PaliGemma {}, action expert {}\n", text("model"), text("paligemma"), text("action_expert"));
  std::string dtypes;
  for (const auto& [dtype, values] : facts["parameters_of_dtype"].items()) {
    dtypes += fmt::format("{}{} {}", dtypes.empty() ? "" : ", ", millions(values.get<std::int64_t>()), dtype);
  }
  print("parameters   {} in {} tensors: {}\n", millions(facts["parameters"].get<std::int64_t>()),
        facts["tensors"].get<std::size_t>(), dtypes);
  std::string adapters;
  for (const auto& [part, rank] : facts["lora_ranks"].items()) {
    adapters += fmt::format("{}{} of rank {}", adapters.empty() ? "LoRA: " : ", ", part, rank.get<std::int64_t>());
  }
  print("adapters     {}\n", adapters.empty() ? "none" : adapters + "; added to the weights when they are read");
  print("actions      {} values, horizon {}\n", facts["action_dim"].get<std::int64_t>(),
        facts["action_horizon"].is_null() ? "not stored; the config says it" : facts["action_horizon"].dump());
  if (facts["statistics"].empty()) print("statistics   none\n");
  for (const Json& entry : facts["statistics"]) print_statistics(entry);
  print("tokenizer    {}\n", facts["tokenizer"].is_null()
                                 ? "none; give --tokenizer with PaliGemma's SentencePiece model"
                                 : text("tokenizer"));
  print("configs      {}\n", facts["configs"].empty() ? "no policy of openpi fits; describe it with --config-file"
                                                      : listed(facts["configs"]));
  std::map<std::string, std::string> configs_of;  // by what hinders them
  for (const auto& [config, why] : facts["not_served"].items()) {
    std::string& configs = configs_of[why.get<std::string>()];
    configs += (configs.empty() ? "" : ", ") + config;
  }
  for (const auto& [why, configs] : configs_of) {
    print("not served   {}{}\n", configs == own_policy ? "" : configs + ": ", why);
  }
  if (!facts["served"].empty()) {
    const std::string config = facts["served"][0].get<std::string>();
    print("serve it     pi0-server {}--checkpoint-dir {}\n", config == own_policy ? "" : "--config " + config + " ",
          shell_word(text("checkpoint")));
  }
}

}  // namespace

void add_inspect(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("inspect", "Say what a checkpoint is and how it would be served; reads no weights");
  command->footer("Example:\n  pi0 inspect ~/.cache/openpi/openpi-assets/checkpoints/pi05_droid");
  const auto place = std::make_shared<std::string>();
  const auto as_json = std::make_shared<bool>(false);
  command->add_option("checkpoint", *place, "Checkpoint of openpi, PyTorch or JAX, or of LeRobot")
      ->transform(or_cached())
      ->required();
  command->add_flag("--json", *as_json, "Print JSON");
  command->callback([place, as_json] {
    const Json facts = facts_of(*place);
    *as_json ? print("{}", text_of(facts)) : print_facts(facts);
  });
}

}  // namespace pi0::tools
