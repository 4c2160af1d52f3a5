#include "quant/calibration.h"

#include <c10/util/hash.h>

#include <algorithm>
#include <array>
#include <utility>

#include "model/json_fields.h"
#include "model/linear.h"

namespace pi0::quant {
namespace {

// Values of the metadata that are JSON, not text.
constexpr std::array json_keys = {"num_steps", "n_observations", "seed", "percentiles", "skip_components"};

bool is_json(const std::string& key) { return std::ranges::find(json_keys, key) != json_keys.end(); }

nlohmann::json parse_value(const std::string& where, const std::string& key, const std::string& text) {
  if (!is_json(key)) return text;
  try {
    return nlohmann::json(model::parse_json(text, where + ": metadata '" + key + "'"));
  } catch (const model::JsonFileError& error) {
    throw model::CheckpointError(error.what());
  }
}

bool is_count(const nlohmann::json& value) {
  return value.is_number_unsigned() && value >= 1 && value <= std::int64_t{1} << 24;
}

bool are_percentiles(const nlohmann::json& values) {
  return values.is_array() && !values.empty() && std::ranges::all_of(values, [](const nlohmann::json& value) {
           return value.is_number() && value >= 0 && value <= 100;
         });
}

bool are_texts(const nlohmann::json& values) {
  return values.is_array() &&
         std::ranges::all_of(values, [](const nlohmann::json& value) { return value.is_string(); });
}

}  // namespace

std::int64_t steps_of(const model::MatmulSite& site, std::int64_t num_steps) {
  const bool is_in_steps =
      site.component == model::Component::action_expert || site.component == model::Component::action_head;
  return is_in_steps ? num_steps : 1;
}

std::string weights_fingerprint(const model::SiteList& sites) {
  std::string rows;
  for (const model::MatmulSite& site : sites.all()) {
    const auto* const linear = dynamic_cast<const model::Linear*>(&site);
    if (linear == nullptr) continue;
    const at::Tensor row = linear->backend.first_row(*linear).to(at::kCPU, at::kBFloat16).contiguous();
    rows.append(static_cast<const char*>(row.const_data_ptr()), row.nbytes());
  }
  return c10::sha1(rows).str();
}

void write_calibration(const model::WriteBytes& write, const std::map<std::string, at::Tensor>& tensors,
                       const nlohmann::ordered_json& meta) {
  std::map<std::string, std::string> texts;
  for (const auto& [key, value] : meta.items()) {
    texts[key] = is_json(key) ? value.dump() : value.get<std::string>();
  }
  model::write_safetensors(write, tensors, texts);
}

Calibration::Calibration(std::filesystem::path file, const model::SiteList& sites) : path_(std::move(file)) {
  const model::SafetensorsFile opened(path_);
  read_meta(opened);
  for (const model::MatmulSite& site : sites.all()) {
    const bool is_skipped = skipped_.contains(std::string(name_of(site.component)));
    if (is_skipped || dynamic_cast<const model::Linear*>(&site) == nullptr) continue;
    sites_.emplace(site.path, read_site(opened, site));
  }
  refuse_others(opened);
}

void Calibration::read_meta(const model::SafetensorsFile& file) {
  for (const auto& [key, text] : file.metadata()) meta_[key] = parse_value(path_.string(), key, text);
  const auto check = [&](const char* key, bool (*is_good)(const nlohmann::json&), const char* expected) {
    const nlohmann::json value = meta_.value(key, nlohmann::json());
    if (!is_good(value)) {
      refuse(c10::str("metadata '", key, "' is ", model::shown(value), ", expected ", expected,
                      "; pi0 calibrate writes such files"));
    }
  };
  check("num_steps", is_count, "an integer from 1 on");
  check("n_observations", is_count, "an integer from 1 on");
  check("percentiles", are_percentiles, "a list of numbers from 0 to 100");
  check("skip_components", are_texts, "a list of texts");
  num_steps_ = meta_["num_steps"];
  percentiles_ = meta_["percentiles"].get<std::vector<double>>();
  skipped_ = meta_["skip_components"].get<std::set<std::string>>();
}

Calibration::Site Calibration::read_site(const model::SafetensorsFile& file, const model::MatmulSite& site) const {
  const std::int64_t steps = steps_of(site, num_steps_), channels = site.in_features;
  const auto count = static_cast<std::int64_t>(percentiles_.size());
  const auto read = [&](const char* statistic, const std::vector<std::int64_t>& shape) {
    const std::string name = site.path + statistic;
    const auto found = file.entries().find(name);
    if (found == file.entries().end()) {
      refuse("has no tensor '" + name + "', expected one for every linear of the model; is it of another model?");
    }
    if (found->second.dtype != at::kFloat || found->second.shape != shape) {
      refuse(c10::str("tensor '", name, "' is ", found->second.dtype, " ", at::IntArrayRef(found->second.shape),
                      ", expected Float ", at::IntArrayRef(shape), "; is it of another model?"));
    }
    at::Tensor values = file.tensor(name);
    if (!values.isfinite().all().item<bool>() || values.lt(0).any().item<bool>()) {
      refuse("tensor '" + name + "' has a value that is negative or not finite, expected magnitudes");
    }
    return values;
  };
  read(".mean_square", {steps, channels});
  const at::Tensor largest = read(".percentiles", {steps, count, channels}).amax({0, 2}).contiguous();
  const float* const first = largest.const_data_ptr<float>();
  return {read(".absmax", {steps, channels}).amax(0), {first, first + count}};
}

void Calibration::refuse_others(const model::SafetensorsFile& file) const {
  for (const auto& [name, entry] : file.entries()) {
    const std::size_t dot = name.rfind('.');
    const std::string path = name.substr(0, dot), statistic = dot == std::string::npos ? "" : name.substr(dot + 1);
    const bool is_known = statistic == "absmax" || statistic == "mean_square" || statistic == "percentiles";
    if (is_known && sites_.contains(path)) continue;
    refuse("has a tensor '" + name + "', which is no statistic of a linear of this model; is it of another model?");
  }
}

const Calibration::Site& Calibration::site(const std::string& path) const {
  const auto found = sites_.find(path);
  if (found == sites_.end()) {
    const std::string component(name_of(model::component_of(path)));
    refuse("has no statistics of '" + path + "'" +
           (skipped_.contains(component) ? ": " + component + " was left out when it was recorded" : ""));
  }
  return found->second;
}

void Calibration::check_weights(const model::SiteList& sites) const {
  const nlohmann::json found = meta_.value("weights", nlohmann::json());
  if (found.is_null()) return;
  if (const std::string expected = weights_fingerprint(sites); found != expected) {
    refuse("was recorded with other weights (" + meta_.value("checkpoint", "of an unknown checkpoint") +
           "): their fingerprint is " + model::shown(found) + ", expected " + expected +
           "; record it again with this checkpoint by pi0 calibrate");
  }
}

at::Tensor Calibration::absmax(const std::string& site_path) const { return site(site_path).absmax; }

float Calibration::percentile(const std::string& site_path, double percentile) const {
  const Site& of_site = site(site_path);
  const auto found = std::ranges::find(percentiles_, percentile);
  if (found == percentiles_.end()) {
    refuse(c10::str("has no percentile ", percentile, ", found ", model::shown(meta_["percentiles"])));
  }
  return of_site.percentiles[static_cast<std::size_t>(found - percentiles_.begin())];
}

void Calibration::refuse(const std::string& what) const { throw model::CheckpointError(path_.string() + ": " + what); }

}  // namespace pi0::quant
