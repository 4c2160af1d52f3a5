#include "tools/bench/bench_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "tools/bench/median_interval.h"

namespace pi0::tools {
namespace {

using Json = nlohmann::ordered_json;

double sum(const std::vector<double>& values) {
  double total = 0;
  for (const double value : values) total += value;
  return total;
}

bool counts(const BenchRun& run, double best_gemm) {
  return std::min(run.gemm_before, run.gemm_after) >= least_speed * best_gemm;
}

struct Row {
  const char* label;
  const char* place;  // in a record
  double scale = 1;
};

constexpr Row rows[] = {
    {"seconds, median", "/seconds/median"},
    {"  least", "/seconds/min"},
    {"  95th percentile", "/seconds/p95"},
    {"  most", "/seconds/max"},
    {"of them: wire", "/stages/wire"},
    {"  transforms", "/stages/transforms"},
    {"  vision", "/stages/vision"},
    {"  prefix", "/stages/prefix"},
    {"  denoise", "/stages/denoise"},
    {"  other", "/stages/other"},
    {"of these: a denoise step", "/within_stages/denoise_step"},
    {"  rounding", "/within_stages/rounding"},
    {"  statistics", "/within_stages/statistics"},
    {"TFLOP", "/flop", 1e-12},
    {"GFLOP/s", "/gflop_per_second"},
    {"  best product's", "/gemm/gflop_per_second"},
    {"  share of it", "/gemm_share"},
    {"  in vision", "/stage_gemm_shares/vision"},
    {"  in prefix", "/stage_gemm_shares/prefix"},
    {"  in denoise", "/stage_gemm_shares/denoise"},
    {"GiB of weights a step", "/step_weights/gib"},
    {"  memory reads, GB/s", "/step_weights/read_gb_per_second"},
    {"  share of it", "/step_weights/share"},
    {"peak resident, GiB", "/peak_resident_gib"},
    {"  on the GPU, GiB", "/peak_device_gib"},
};

std::string cell(const Json& value, double scale) {
  return value.is_number() ? fmt::format("{:.4g}", value.get<double>() * scale) : "-";
}

std::string ratio_cell(const Json& value, const Json& first) {
  if (!value.is_number() || !first.is_number() || first.get<double>() == 0) return "";
  return fmt::format("x{:.2f}", value.get<double>() / first.get<double>());
}

Json or_null(std::optional<double> value) { return value ? Json(*value) : Json(); }

Json stages_of(const CaseSeconds& seconds) {
  const double vision = seconds.stages.vision, prefix = seconds.stages.prefix, denoise = sum(seconds.stages.denoise);
  return {{"wire", seconds.wire}, {"transforms", seconds.transforms},
          {"vision", vision},     {"prefix", prefix},
          {"denoise", denoise},   {"other", seconds.model - vision - prefix - denoise}};
}

Json at(const Json& record, const char* place) {
  const Json::json_pointer pointer(place);
  return record.contains(pointer) ? record.at(pointer) : Json();
}

}  // namespace

std::vector<BenchRun> counting_runs(const BenchMode& mode) {
  std::vector<BenchRun> counting;
  for (const BenchRun& run : mode.runs) {
    if (counts(run, mode.gemm.best)) counting.push_back(run);
  }
  return counting;
}

Json bench_record(const BenchMode& mode) {
  const std::vector<BenchRun> counting = counting_runs(mode);
  std::vector<BenchRun> runs = counting.empty() ? mode.runs : counting;
  std::ranges::sort(runs, {}, [](const BenchRun& run) { return run.seconds.total(); });
  std::vector<double> totals;
  for (const BenchRun& run : runs) totals.push_back(run.seconds.total());
  const std::size_t last_of_95 = (95 * runs.size() + 99) / 100 - 1;
  const BenchRun& middle = runs[(runs.size() - 1) / 2];
  const CaseSeconds& seconds = middle.seconds;
  const double denoise = sum(seconds.stages.denoise), step = median(seconds.stages.denoise);
  const double rate = static_cast<double>(mode.flop) / median(totals);
  const auto step_bytes = static_cast<double>(mode.step_weight_bytes);

  Json record;
  record["mode"] = mode.name;
  record["seconds"] = {
      {"median", median(totals)}, {"min", totals.front()}, {"p95", totals[last_of_95]}, {"max", totals.back()}};
  record["counted"] = counting.size();
  record["stages"] = stages_of(seconds);
  record["within_stages"] = {
      {"denoise_step", step}, {"rounding", or_null(middle.rounding)}, {"statistics", or_null(middle.statistics)}};
  record["flop"] = mode.flop;
  record["gflop_per_second"] = rate / 1e9;
  record["gemm_share"] = rate / mode.gemm.best;
  const auto stage_share = [&](std::int64_t flop, double stage) {
    return static_cast<double>(flop) / stage / mode.gemm.best;
  };
  record["stage_gemm_shares"] = {{"vision", stage_share(mode.vision_flop, seconds.stages.vision)},
                                 {"prefix", stage_share(mode.prefix_flop, seconds.stages.prefix)},
                                 {"denoise", stage_share(mode.denoise_flop, denoise)}};
  record["gemm"] = {{"product", mode.gemm.name}, {"gflop_per_second", mode.gemm.best / 1e9}};
  record["step_weights"] = {{"gib", step_bytes / (1 << 30)},
                            {"read_gb_per_second", mode.read_bandwidth / 1e9},
                            {"share", step_bytes / step / mode.read_bandwidth}};
  record["peak_resident_gib"] = mode.peak_resident_gib;
  record["peak_device_gib"] = or_null(mode.peak_device_gib);
  for (const BenchRun& run : mode.runs) {
    record["runs"].push_back({{"seconds", run.seconds.total()},
                              {"stages", stages_of(run.seconds)},
                              {"gemm_before", run.gemm_before / 1e9},
                              {"gemm_after", run.gemm_after / 1e9},
                              {"counts", counts(run, mode.gemm.best)}});
  }
  record["settings"] = mode.settings;
  return record;
}

Json bench_records(const std::vector<Json>& records) {
  Json all;
  for (const Json& record : records) all[record.at("mode").get<std::string>()] = record;
  Json& ratios = all["ratios"];
  const auto name = [&](std::size_t i) { return records[i].at("mode").get<std::string>(); };
  const auto seconds = [&](std::size_t i) { return records[i].at("seconds").at("median").get<double>(); };
  for (std::size_t i = 1; i < records.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) ratios[name(i) + "/" + name(j)] = seconds(i) / seconds(j);
  }
  return all;
}

std::string bench_count(const Json& record) {
  const Json counted = at(record, "/counted"), runs = at(record, "/runs");
  if (!counted.is_number() || !runs.is_array()) return "";
  return fmt::format("{} of {} runs", counted.dump(), runs.size());
}

std::string bench_warning(const Json& record) {
  const Json counted = at(record, "/counted"), wanted = at(record, "/settings/repeats");
  if (!counted.is_number() || !wanted.is_number() || counted >= wanted) return "";
  return fmt::format("only {} of {} runs {}, the machine changed its speed{}", counted.dump(), wanted.dump(),
                     counted == 1 ? "counts" : "count", counted == 0 ? "; the figures are of all" : "");
}

std::string bench_table(const std::vector<BenchColumn>& columns) {
  std::string table = fmt::format("{:<26}", "");
  std::string counts, warnings;
  for (const auto& [heading, record] : columns) {
    const bool first = &heading == &columns.front().first;
    table += fmt::format(" {:>20}{}", heading, first ? "" : fmt::format(" {:>7}", ""));
    const std::string count = bench_count(record), warning = bench_warning(record);
    if (!count.empty()) counts += fmt::format("{}: {} counted\n", heading, count);
    if (!warning.empty()) warnings += fmt::format("WARNING: {}: {}\n", heading, warning);
  }
  table += "\n";
  for (const Row& row : rows) {
    table += fmt::format("{:<26}", row.label);
    const Json first = at(columns.front().second, row.place);
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const Json value = at(columns[i].second, row.place);
      table += fmt::format(" {:>20}", cell(value, row.scale));
      if (i > 0) table += fmt::format(" {:>7}", ratio_cell(value, first));
    }
    table += "\n";
  }
  return table + counts + warnings;
}

}  // namespace pi0::tools
