#include "tools/client/watch.h"

#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/openpi_messages.h"
#include "server/spread.h"
#include "tools/common/print.h"
#include "tools/common/stop_signals.h"
#include "tools/common/stopwatch.h"

namespace pi0::tools {
namespace {

// What an answer says of its own time, in milliseconds. Other servers than ours may say nothing.
std::optional<double> infer_ms(const protocol::Dict& answer, std::string_view timing_key) {
  const protocol::Value* timing = answer.find(timing_key);
  const auto* times = timing == nullptr ? nullptr : std::get_if<protocol::Dict>(timing);
  const protocol::Value* time = times == nullptr ? nullptr : times->find("infer_ms");
  const auto* number = time == nullptr ? nullptr : std::get_if<double>(time);
  return number == nullptr ? std::nullopt : std::optional(*number);
}

// The latencies of some requests in milliseconds: in the model, in the server with decoding, until the answer was here.
struct Latencies {
  std::array<std::vector<double>, 3> ms;

  void add(const protocol::Dict& answer, double round_trip_ms) {
    if (const auto time = infer_ms(answer, protocol::policy_timing_key)) ms[0].push_back(*time);
    if (const auto time = infer_ms(answer, protocol::server_timing_key)) ms[1].push_back(*time);
    ms[2].push_back(round_trip_ms);
  }

  void add(const Latencies& more) {
    for (std::size_t i = 0; i < ms.size(); ++i) ms[i].insert(ms[i].end(), more.ms[i].begin(), more.ms[i].end());
  }

  std::size_t count() const { return ms[2].size(); }
};

void print_line(const std::string& label, Latencies latencies, double seconds) {
  std::string line =
      fmt::format("{:>8} {:>9} {:>7.2f}", label, latencies.count(), static_cast<double>(latencies.count()) / seconds);
  for (std::vector<double>& values : latencies.ms) {
    if (values.empty()) {
      line += fmt::format(" {:>9} {:>9}", "-", "-");
      continue;
    }
    const server::Spread spread = server::spread_of(values);
    line += fmt::format(" {:>9.1f} {:>9.1f}", spread.median, spread.worst);
  }
  print("{}\n", line);
  flush_output();
}

// Over a new connection when the server shuts down.
protocol::Dict answer_of(std::unique_ptr<PolicyClient>& client, const ServerAccess& access,
                         const protocol::Dict& request) {
  try {
    return client->infer(request);
  } catch (const ServerShutDown& end) {
    print(stderr, "client: {}; connecting again\n", end.what());
  }
  client = std::make_unique<PolicyClient>(access);
  return client->infer(request);
}

class Watch {
 public:
  void add(const protocol::Dict& answer, double seconds) {
    recent_.add(answer, seconds * 1000);
    recent_seconds_ += seconds;
    if (recent_seconds_ >= 1) end_line();
  }

  void end() {
    if (recent_.count() > 0) end_line();
    if (all_.count() > 0) print_line("all", all_, seconds_);
  }

 private:
  void end_line() {
    seconds_ += recent_seconds_;
    print_line(fmt::format("{:.0f}", seconds_), recent_, recent_seconds_);
    all_.add(recent_);
    recent_ = {};
    recent_seconds_ = 0;
  }

  Latencies all_, recent_;
  double seconds_ = 0, recent_seconds_ = 0;
};

}  // namespace

void watch(std::unique_ptr<PolicyClient> client, const ServerAccess& access, const protocol::Dict& request) {
  const StopSignals stop("client");
  print("{:>26} {:>19} {:>19} {:>19}\n", "", "infer_ms", "server ms", "round trip ms");
  print("{:>8} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "second", "requests", "per s", "median", "worst",
        "median", "worst", "median", "worst");
  flush_output();
  Watch times;
  Stopwatch stopwatch;
  try {
    while (!stop.came() && std::ferror(stdout) == 0) {
      const protocol::Dict answer = answer_of(client, access, request);
      times.add(answer, stopwatch.lap());
    }
  } catch (const std::exception&) {
    times.end();
    throw;
  }
  times.end();
}

}  // namespace pi0::tools
