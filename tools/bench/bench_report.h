// Results of `pi0 bench` as JSON and as tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/bench/bench_case.h"
#include "tools/bench/bench_gauge.h"

namespace pi0::tools {

// One timed run.
struct BenchRun {
  CaseSeconds seconds;
  // Seconds in the stages: all threads' over their count; none on a GPU.
  std::optional<double> rounding = {}, statistics = {};
  double gemm_before = 0, gemm_after = 0;  // FLOP per second of the reference product
};

// One way to run the model, and what was found.
struct BenchMode {
  std::string name;                // unquantized, without_statistics, with_statistics
  const GemmGauge::Product& gemm;  // the reference; its best rate may still rise
  std::vector<BenchRun> runs = {};
  std::int64_t flop = 0;                                            // of one request
  std::int64_t vision_flop = 0, prefix_flop = 0, denoise_flop = 0;  // which that is the sum of
  std::int64_t step_weight_bytes = 0;                               // that a denoise step reads
  double read_bandwidth = 0;                                        // bytes per second
  double peak_resident_gib = 0;
  std::optional<double> peak_device_gib = {};
  nlohmann::ordered_json settings = {};
};

// A run counts with the machine at this share of its best speed before and after.
inline constexpr double least_speed = 0.85;
std::vector<BenchRun> counting_runs(const BenchMode& mode);

// The fields of --json. Figures are of the runs that count, or of all when none does; stages are of
// the one in the middle.
nlohmann::ordered_json bench_record(const BenchMode& mode);

// Records of several modes by name, and the ratios of their median seconds.
nlohmann::ordered_json bench_records(const std::vector<nlohmann::ordered_json>& records);

// "2 of 3 runs": those that count, of those that were tried; empty for a record that does not say.
std::string bench_count(const nlohmann::ordered_json& record);

// "only 1 of 3 runs counts, ..." where too few do; else empty.
std::string bench_warning(const nlohmann::ordered_json& record);

// A column per record, with ratios to the first, and a warning where too few runs count.
using BenchColumn = std::pair<std::string, nlohmann::ordered_json>;
std::string bench_table(const std::vector<BenchColumn>& columns);

}  // namespace pi0::tools
