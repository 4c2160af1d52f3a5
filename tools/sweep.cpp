// pi0 sweep: every pair of formats over some observations on one loaded model, against its own
// unquantized actions. Reference: pi0-quant eval_harness.py run_sweep.
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/json_fields.h"
#include "protocol/files.h"
#include "protocol/openpi_messages.h"
#include "tools/bench_clock.h"
#include "tools/commands.h"
#include "tools/model_options.h"
#include "tools/observations.h"
#include "tools/quant_session.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct SweepOptions {
  ModelOptions model;
  QuantOptions quant;  // attention and skipped components
  std::vector<std::string> input_fmts, output_fmts;
  fs::path observations;
  std::int64_t synthetic = 0;
  fs::path output;
  bool resume = false;
};

void tell(const std::string& line) { fmt::print(stderr, "sweep: {}\n", line); }

// An observation as the model takes it, and its actions without quantization.
struct Case {
  model::ModelInputs inputs;
  at::Tensor noise;         // [1, A, N]
  at::Tensor raw;           // [1, A, N] of the model
  at::Tensor robot;         // [A, robot's] float64, in its units
};

at::Tensor actions_of(const protocol::Dict& answer) {
  const auto& array = std::get<protocol::NdArray>(*answer.find(protocol::actions_key));
  at::Tensor actions = at::empty(array.shape, at::kDouble);
  std::memcpy(actions.mutable_data_ptr(), array.data.data(), array.data.size());
  return actions;
}

at::Tensor tensor_of(const protocol::NdArray& noise) {
  at::Tensor tensor = at::empty(noise.shape, at::kFloat);
  std::memcpy(tensor.mutable_data_ptr(), noise.data.data(), noise.data.size());
  return tensor.unsqueeze(0);
}

// Numbers that are not finite are null.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json numbers(const at::Tensor& values) {
  Json list = Json::array();
  for (std::int64_t i = 0; i < values.numel(); ++i) list.push_back(number(values[i].item<double>()));
  return list;
}

// Squared differences of all observations.
class ActionErrors {
 public:
  // As pi0-quant sums them: float32 tensors, their sums in double.
  void add_raw(const at::Tensor& reference, const at::Tensor& found) {
    const at::Tensor squares = (reference - found).pow(2);
    raw_ += squares.sum().item<float>();
    raw_count_ += squares.numel();
  }

  void add_robot(const at::Tensor& reference, const at::Tensor& found) {
    const at::Tensor squares = (reference - found).pow(2);
    robot_ = robot_.defined() ? robot_ + squares : squares;
    ++robot_count_;
  }

  void write(Json& entry) const {
    entry["action_rmse"] = number(std::sqrt(raw_ / static_cast<double>(raw_count_)));
    const at::Tensor mean = robot_.defined() ? robot_ / robot_count_ : at::full({1, 1}, NAN, at::kDouble);
    entry["action_rmse_robot"] = number(mean.mean().sqrt().item<double>());
    entry["action_rmse_by_dimension"] = numbers(mean.mean(0).sqrt());
    entry["action_rmse_by_step"] = numbers(mean.mean(1).sqrt());
    entry["nonfinite_observations"] = nonfinite;
  }

  std::int64_t nonfinite = 0;  // observations without actions that a robot could be sent

 private:
  double raw_ = 0;
  std::int64_t raw_count_ = 0;
  at::Tensor robot_;  // [A, robot's], summed over observations
  std::int64_t robot_count_ = 0;
};

class Sweep {
 public:
  explicit Sweep(SweepOptions& options)
      : options_(options), parts_(load_parts(options.model)),
        steps_(step_count(options.model, parts_.sizes)) {
    if (!options_.model.seed) options_.model.seed = 0;  // a sweep is to be repeatable
    observations_ = options.observations.empty()
                        ? synthetic_observations(parts_.config.robot, options.synthetic, *options_.model.seed)
                        : read_observations(options.observations);
    meta_ = report_meta(parts_.config.name, chosen_device(options.model.device),
                        options.model.precision, steps_);
    meta_["checkpoint"] = options.model.random_weights ? "random weights" : options.model.checkpoint_dir.string();
    meta_["kernels"] = options.model.kernels == Kernels::fast ? "fast" : "reference";
    meta_["masked"] = options.model.masked == model::MaskedInputs::skip ? "skip" : "keep";
    meta_["observations"] = options.observations.empty() ? fmt::format("{} synthetic", options.synthetic)
                                                         : options.observations.string();
    meta_["seed"] = *options_.model.seed;
    meta_["quantize_attention"] = name_of(options.quant.attention);
    meta_["skip_components"] = options.quant.skip_components;
  }

  void run() {
    const std::vector<QuantOptions> settings = make_settings();
    std::vector<Json> entries(settings.size());
    std::size_t done = 0;
    for (std::size_t i = 0; i < settings.size(); ++i) {
      entries[i] = earlier_entry(settings[i]);
      if (!entries[i].is_null()) ++done;
    }
    if (done > 0) tell(fmt::format("{} of {} settings are there already", done, settings.size()));
    if (done < settings.size()) {
      load();
      BenchClock clock;
      double seconds = 0;
      const std::size_t first = done;
      for (std::size_t i = 0; i < settings.size(); ++i) {
        if (!entries[i].is_null()) continue;
        entries[i] = measure(settings[i]);
        seconds += clock.lap();
        ++done;
        const double left = seconds / static_cast<double>(done - first) * static_cast<double>(settings.size() - done);
        tell(fmt::format("{} of {}, {}: action RMSE {}, {:.1f} s; {:.0f} s left", done, settings.size(),
                         title_of(settings[i]), entries[i]["action_rmse"].dump(),
                         entries[i]["inference_time_s"].get<double>(), left));
      }
    }
    write_summary(entries);
  }

 private:
  static std::string title_of(const QuantOptions& setting) {
    return *setting.input_fmt + "__" + *setting.output_fmt;
  }
  fs::path folder_of(const QuantOptions& setting) const { return options_.output / title_of(setting); }

  std::vector<QuantOptions> make_settings() const {
    std::vector<QuantOptions> settings;
    for (const std::string& input : options_.input_fmts) {
      for (const std::string& output : options_.output_fmts) {
        QuantOptions setting = options_.quant;
        setting.input_fmt = input;
        setting.output_fmt = output;
        settings.push_back(setting);
      }
    }
    return settings;
  }

  // The entry that an earlier run left for a setting; null when there is none.
  Json earlier_entry(const QuantOptions& setting) const {
    const fs::path file = folder_of(setting) / "result.json";
    if (!fs::exists(file)) return {};
    if (!options_.resume) {
      throw std::runtime_error(file.string() + ": is there already; --resume goes on with such a sweep, "
                               "or choose another --output");
    }
    const Json result = model::read_json(file);
    if (!result.is_object() || !result.contains("meta") || !result.contains("entry")) {
      throw std::runtime_error(file.string() + ": is no result of a sweep; remove it to measure the setting again");
    }
    for (const auto& [key, value] : meta_.items()) {
      if (result["meta"].value(key, Json()) == value) continue;
      throw std::runtime_error(fmt::format("{}: was measured with {} {}, this sweep has {}", file.string(), key,
                                           result["meta"].value(key, Json()).dump(), value.dump()));
    }
    return result["entry"];
  }

  void load() {
    fs::create_directories(options_.output);
    protocol::check_writable(options_.output / "summary.json");
    model_ = load_model(options_.model, parts_.sizes);
    at::Tensor raw;
    policy_ = std::make_unique<policy::Policy>(
        parts_.config, parts_.norm_stats, std::move(parts_.tokenizer),
        [&](const model::ModelInputs& inputs, const at::Tensor& noise, std::int64_t steps) {
          return raw = model_->sample_actions(inputs, noise, steps, {.masked = options_.model.masked}).cpu();
        },
        policy::PolicyOptions{options_.model.default_prompt, steps_, *options_.model.seed, tell,
                              options_.model.masked});
    BenchClock clock;
    for (const Observation& observation : observations_) {
      try {
        Case one;
        protocol::NdArray noise;
        one.robot = actions_of(policy_->infer(observation.request, &noise));
        one.inputs = policy_->prepare(observation.request);
        one.noise = tensor_of(noise);
        one.raw = raw;
        cases_.push_back(std::move(one));
      } catch (const std::exception& error) {
        throw std::runtime_error("observation " + observation.name + ": " + error.what());
      }
    }
    tell(fmt::format("{} observations without quantization, {:.1f} s", cases_.size(), clock.lap()));
  }

  Json measure(const QuantOptions& setting) {
    Json meta = meta_;
    quant::StatsBook book;
    const auto hooks = quant::attach(model_->sites(), plan_request(setting), &book, tell);
    ActionErrors errors;
    BenchClock clock;
    double seconds = 0;
    for (const Case& one : cases_) {
      clock.lap();
      const at::Tensor raw =
          model_->sample_actions(one.inputs, one.noise, steps_, {.masked = options_.model.masked}).cpu();
      seconds += clock.lap();
      book.finish_request(quant::StatsBook::Measured::yes);
      errors.add_raw(one.raw, raw);
      if (raw.isfinite().all().item<bool>()) {
        errors.add_robot(one.robot, actions_of(policy_->finish(raw, one.inputs.state)));
      } else {
        ++errors.nonfinite;
      }
    }
    Json entry = {{"input_fmt", *setting.input_fmt}, {"output_fmt", *setting.output_fmt}};
    errors.write(entry);
    const quant::StatsSnapshot seen = book.snapshot();
    for (const char* kind : {"linear", "attention"}) {
      Json& components = entry[std::string(kind) == "linear" ? "components" : "components_attention"] = Json::object();
      for (const quant::ComponentRow& row : quant::component_rows(seen, kind)) {
        components[row.component] = row.mean_rmse ? Json(*row.mean_rmse) : Json();
      }
    }
    entry["n_observations"] = cases_.size();
    entry["inference_time_s"] = seconds;
    meta["input_fmt"] = *setting.input_fmt;
    meta["output_fmt"] = *setting.output_fmt;
    const fs::path folder = folder_of(setting);
    fs::create_directories(folder);
    protocol::write_whole(folder / "stats.json", quant::report_json(seen, meta));
    // Last: a setting with a result is a whole one.
    protocol::write_whole(folder / "result.json", Json{{"meta", meta_}, {"entry", entry}}.dump(1) + "\n");
    return entry;
  }

  void write_summary(const std::vector<Json>& entries) const {
    std::vector<std::string> components;
    for (const Json& entry : entries) {
      for (const auto& [name, value] : entry["components"].items()) {
        if (std::ranges::find(components, name) == components.end()) components.push_back(name);
      }
    }
    std::string csv = "input_fmt,output_fmt,action_rmse,action_rmse_robot";
    for (const std::string& name : components) csv += ",rmse_" + name;
    csv += ",n_observations,inference_time_s\n";
    const auto cell = [](const Json& value) {
      return value.is_null() ? std::string() : value.is_string() ? value.get<std::string>() : value.dump();
    };
    for (const Json& entry : entries) {
      csv += cell(entry["input_fmt"]) + "," + cell(entry["output_fmt"]) + "," + cell(entry["action_rmse"]) + "," +
             cell(entry["action_rmse_robot"]);
      for (const std::string& name : components) csv += "," + cell(entry["components"].value(name, Json()));
      csv += "," + cell(entry["n_observations"]) + "," + cell(entry["inference_time_s"]) + "\n";
    }
    protocol::write_whole(options_.output / "summary.csv", csv);
    protocol::write_whole(options_.output / "summary.json", Json(entries).dump(1) + "\n");
    tell(fmt::format("{} settings in {}", entries.size(), (options_.output / "summary.json").string()));
  }

  SweepOptions& options_;
  PolicyParts parts_;
  const std::int64_t steps_;
  std::vector<Observation> observations_;
  Json meta_;  // what results must share to be compared
  std::shared_ptr<model::Pi0> model_;
  std::unique_ptr<policy::Policy> policy_;
  std::vector<Case> cases_;
};

}  // namespace

void add_sweep(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "sweep", "Run pairs of formats over observations: statistics and action errors of each");
  const auto options = std::make_shared<SweepOptions>();
  add_place_options(*command, options->model);
  add_model_options(*command, options->model);
  add_scope_options(*command, options->quant);
  std::vector<std::string> formats;
  for (const quant::Format format : quant::all_formats) formats.emplace_back(quant::name_of(format));
  options->input_fmts = options->output_fmts = formats;
  const std::string group = "Sweep";
  command->add_option("--input-fmts", options->input_fmts, "Formats of matmul inputs and weights; default: all")
      ->delimiter(',')
      ->check(CLI::IsMember(formats))
      ->group(group);
  command->add_option("--output-fmts", options->output_fmts, "Formats of matmul outputs; default: all")
      ->delimiter(',')
      ->check(CLI::IsMember(formats))
      ->group(group);
  CLI::Option* recorded =
      command->add_option("--observations", options->observations, "Folder that pi0-server --record wrote")
          ->check(CLI::ExistingDirectory)
          ->group(group);
  CLI::Option* synthetic =
      command->add_option("--synthetic", options->synthetic, "Instead: so many made-up observations, of --seed")
          ->check(CLI::Range(1, 100'000))
          ->excludes(recorded)
          ->group(group);
  command->add_option("--output", options->output, "Folder of the results")->required()->group(group);
  command->add_flag("--resume", options->resume, "Go on with a sweep that was interrupted")->group(group);
  command->callback([options, recorded, synthetic] {
    if (recorded->count() + synthetic->count() == 0) {
      throw CLI::RequiredError("--observations or --synthetic");
    }
    Sweep(*options).run();
  });
}

}  // namespace pi0::tools
