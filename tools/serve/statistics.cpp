#include "tools/serve/statistics.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <csignal>
#include <exception>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "quant/report.h"
#include "tools/common/print.h"

namespace pi0::tools {
namespace {

std::vector<server::GaugeValue> component_rmse(const quant::StatsSnapshot& seen) {
  std::vector<server::GaugeValue> values;
  for (const char* kind : quant::layer_kinds) {
    for (const quant::ComponentRow& row : quant::component_rows(seen, kind)) {
      values.push_back({row.mean_rmse.value_or(std::numeric_limits<double>::quiet_NaN()),
                        {{"component", row.component}, {"kind", kind}}});
    }
  }
  return values;
}

void write_statistics(const QuantSession& session) {
  if (const std::string written = session.write(); !written.empty()) spdlog::info("{}", written);
}

}  // namespace

void refuse_statistics(server::Server& server) {
  server.on_signal(SIGUSR1, [] { spdlog::warn("SIGUSR1: there are no statistics to write"); });
  for (const auto& [method, path] : {std::pair("GET", "/stats"), std::pair("POST", "/stats/reset")}) {
    server.add_route(
        {method, path, [] {
           return server::HttpResponse{
               404,
               "no statistics: the server was started without formats, --rules and --stats-output, or with "
               "--no-statistics\n"};
         }});
  }
}

void add_statistics(server::Server& server, QuantSession& session, double interval_seconds) {
  server.add_route({"GET", "/stats", [&] { return server::HttpResponse{200, session.report(), "application/json"}; }});
  server.add_route({"POST", "/stats/reset", [&] {
                      session.reset();
                      return server::HttpResponse{200, "OK\n"};
                    }});
  session.count_answers([&] { return server.answered(); });
  server.add_gauge({"pi0_measured_requests",
                    "Requests whose errors were measured, whether their client took the answer or not.",
                    [&] { return std::vector{server::GaugeValue{static_cast<double>(session.snapshot().measured)}}; }});
  server.add_gauge({"pi0_component_rmse",
                    "Mean RMSE of a component's layers against full precision; NaN when one is not finite.",
                    [&] { return component_rmse(session.snapshot()); }});
  server.on_second_signal([&] { write_statistics(session); });
  server.on_signal(SIGUSR1, [&] { write_statistics(session); });
  if (interval_seconds > 0) {
    server.every(std::chrono::milliseconds(static_cast<std::int64_t>(interval_seconds * 1000)),
                 [&] { write_statistics(session); });
  }
}

void serve_until_signal(server::Server& server, const QuantSession* session) {
  try {
    server.run();
  } catch (const std::exception&) {
    if (session != nullptr) write_statistics(*session);
    throw;
  }
  if (session == nullptr) return;
  std::exception_ptr failure;  // of the file: the table is printed all the same
  try {
    write_statistics(*session);
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  try {
    print("{}", session->table());
    flush_output();
  } catch (const std::exception& error) {  // the table is optional
    spdlog::warn("{}", error.what());
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace pi0::tools
