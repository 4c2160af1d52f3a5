#include "tools/bench/bench_compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>

#include "model/json_fields.h"
#include "tools/bench/median_interval.h"
#include "tools/common/results.h"

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;

// Seconds of the runs that count: of the whole request, by the name "", and of each stage.
using CountedTimes = nlohmann::ordered_map<std::string, std::vector<double>>;

CountedTimes counted_times(const Json& record, const std::string& where) {
  CountedTimes times;
  model::JsonFields fields(record, where);
  if (!fields.has("runs")) return times;
  const auto add = [&](const std::string& stage, const Json& seconds) {
    if (seconds.is_number()) times[stage].push_back(seconds.get<double>());
  };
  for (model::JsonFields& run : fields.rows("runs")) {
    if (!run.flag("counts")) continue;
    add("", run.number_or_null("seconds"));
    if (!run.has("stages")) continue;  // of an earlier version
    for (const auto& [stage, seconds] : run.named_numbers("stages").items()) add(stage, seconds);
  }
  return times;
}

// Settings that a request's time depends on.
Json of_time(Json settings) {
  for (const char* other : {"version", "instructions", "warmup", "repeats"}) settings.erase(other);
  return settings;
}

std::string differing_settings(const Json& first, const Json& second) {
  std::string lines;
  for (const auto& [key, value] : first.at("settings").items()) {
    const Json other = second.at("settings").value(key, Json());
    if (value != other) lines += fmt::format("{}: {} / {}\n", key, model::shown(value), model::shown(other));
  }
  return lines;
}

std::string compared_times(const std::vector<double>& before, const std::vector<double>& now) {
  const std::optional<MedianInterval> first = median_interval(before), second = median_interval(now);
  if (!first || !second) {
    return fmt::format("cannot be told from {} and {} runs that count; --repeats {} or more", before.size(), now.size(),
                       least_for_interval);
  }
  const double change = second->median / first->median - 1;
  const bool is_apart = second->low > first->high || second->high < first->low;
  const auto shown = [](const MedianInterval& one) {
    return fmt::format("{:.4g} ms ({:.4g} to {:.4g})", 1e3 * one.median, 1e3 * one.low, 1e3 * one.high);
  };
  return fmt::format("{:.1f} % {}, {} the spread: {} after {}", std::abs(100 * change),
                     change < 0 ? "faster" : "slower", is_apart ? "more than" : "within", shown(*second),
                     shown(*first));
}

}  // namespace

std::vector<BenchColumn> read_benches(const std::filesystem::path& file) {
  const Json content = model::read_json(file);
  std::vector<BenchColumn> records;
  const auto add = [&](const Json& record) {
    if (!record.is_object() || !record.contains("mode") || !record.contains("settings")) return;
    model::JsonFields fields(record, file.string());
    fields.any_object("settings");
    counted_times(record, file.string());  // refuses what is none
    records.emplace_back(fields.text("mode"), record);
  };
  add(content);
  if (content.is_object()) std::ranges::for_each(content, add);
  if (records.empty()) {
    throw std::runtime_error(file.string() + ": found no record, expected what pi0 bench --json writes");
  }
  return records;
}

const Json& comparable_record(const std::vector<BenchColumn>& records, const std::filesystem::path& file,
                              const std::string& mode, const Json& settings) {
  const auto record = std::ranges::find(records, mode, &BenchColumn::first);
  if (record == records.end()) {
    throw std::runtime_error(fmt::format("{}: has {} and no {}", file.string(), records.front().first, mode));
  }
  check_same_settings(file, of_time(record->second.at("settings")), "this run", of_time(settings));
  return record->second;
}

std::string compared_medians(const Json& before, const Json& now) {
  const std::string mode = now.at("mode");
  CountedTimes first = counted_times(before, mode), second = counted_times(now, mode);
  std::string text = mode + ": " + compared_times(first[""], second[""]) + "\n";
  for (const auto& [stage, seconds] : second) {
    if (stage.empty() || first[stage].size() < least_for_interval || seconds.size() < least_for_interval) continue;
    text += fmt::format("{}, {}: {}\n", mode, stage, compared_times(first[stage], seconds));
  }
  const Json::json_pointer rate("/gemm/gflop_per_second"), product("/gemm/product");
  const Json known_rate = before.value(rate, Json()), own_rate = now.value(rate, Json());
  const bool is_same_product = before.value(product, Json()) == now.value(product, Json());
  if (!known_rate.is_number() || !own_rate.is_number() || !is_same_product) return text;
  const double once = known_rate, here = own_rate;
  if (std::min(once, here) < least_speed * std::max(once, here)) {
    text += fmt::format(
        "WARNING: {}: the best product ran at {:.0f} GFLOP/s and now at {:.0f}, so the machine itself "
        "has another speed\n",
        mode, once, here);
  }
  return text;
}

std::string compare_benches(const std::filesystem::path& first, const std::filesystem::path& second) {
  const std::vector<BenchColumn> known = read_benches(first), others = read_benches(second);
  const bool single = known.size() == 1 && others.size() == 1;
  std::string text;
  for (const auto& [mode, record] : known) {
    for (const auto& [other_mode, other] : others) {
      if (!single && mode != other_mode) continue;
      text += mode == other_mode ? mode + "\n" : mode + " / " + other_mode + "\n";
      text += differing_settings(record, other);
      text += bench_table({{first.filename(), record}, {second.filename(), other}});
      const bool is_same = mode == other_mode && of_time(record.at("settings")) == of_time(other.at("settings"));
      text +=
          (is_same ? compared_medians(record, other) : "Not compared with the spread: the settings differ.\n") + "\n";
    }
  }
  if (text.empty()) {
    throw std::runtime_error(first.string() + " and " + second.string() + " have no mode in common");
  }
  return text;
}

}  // namespace pi0::tools
