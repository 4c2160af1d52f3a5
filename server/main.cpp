// pi0-server: serves a Pi0 or Pi0.5 policy over openpi's WebSocket protocol.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/end_signals.h"
#include "server/server_options.h"
#include "tools/command_line.h"
#include "tools/failure.h"
#include "tools/list_layers.h"
#include "tools/observations.h"
#include "tools/openmp_spins.h"
#include "tools/print.h"
#include "tools/version.h"

namespace {

using pi0::policy::CallWatch;
using pi0::policy::Reply;
using pi0::protocol::Dict;
using pi0::server::GaugeValue;
using pi0::server::HttpResponse;
using pi0::server::Outcome;
using pi0::server::ProgramOptions;
using pi0::server::Recorder;
using pi0::tools::QuantSession;

// The signals that end a server, before it serves: there is nothing to lose yet, so the program ends at once. It also
// keeps them from ending the program by the default after it has served, until it has ended by itself.
class StartingSignals {
 public:
  StartingSignals() {
    for (const int signal : pi0::server::end_signals()) signals_.add(signal);
    signals_.add(SIGUSR1);  // which means nothing before there are statistics, and after
    wait();
    thread_ = std::thread([this] { io_.run(); });
  }
  void over() { is_over_ = true; }

 private:
  void wait() {
    signals_.async_wait([this](const boost::system::error_code& error, int signal) {
      if (error) return;
      if (!is_over_ && signal != SIGUSR1) {
        pi0::tools::print(stderr, "pi0-server: {}: ended while starting\n", pi0::server::name_of_signal(signal));
        std::_Exit(0);
      }
      wait();
    });
  }

  std::atomic<bool> is_over_ = false;
  boost::asio::io_context io_{1};
  boost::asio::signal_set signals_{io_};
  std::thread thread_;
};

void start_logging(const ProgramOptions& options) {
  std::vector<spdlog::sink_ptr> sinks = {std::make_shared<spdlog::sinks::stderr_color_sink_mt>()};
  if (!options.log_file.empty()) {
    constexpr std::size_t full_files = 3;
    sinks.push_back(std::make_shared<spdlog::sinks::rotating_file_sink_mt>(options.log_file.string(),
                                                                           options.log_file_mib << 20, full_files));
  }
  auto logger = std::make_shared<spdlog::logger>("", sinks.begin(), sinks.end());
  logger->set_level(spdlog::level::from_str(options.log_level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

void log_configuration(const ProgramOptions& options, const std::string& policy, const nlohmann::ordered_json& meta) {
  const pi0::tools::ModelOptions& model = options.model;
  spdlog::info("policy {} from {}{}", policy,
               model.checkpoint_dir.empty() ? "no checkpoint" : model.checkpoint_dir.string(),
               model.random_weights ? " with RANDOM WEIGHTS: its actions mean nothing" : "");
  const int threads = model.threads > 0 ? model.threads : at::get_num_threads();
  spdlog::info("{} on {}, kernels {}, {}, {}", meta["precision"].get<std::string>(), meta["device"].get<std::string>(),
               name_of(model.kernels),
               pi0::tools::counted(static_cast<std::size_t>(threads), "CPU thread"),
               pi0::tools::counted(meta["num_steps"].get<std::size_t>(), "denoise step"));
}

std::string quantized_text(const pi0::tools::QuantOptions& quant, std::size_t layers) {
  const std::string formats = !quant.rules.empty()
                                  ? "by " + quant.rules.string()
                                  : quant.input_fmt.value_or("float32") + " / " + quant.output_fmt.value_or("float32");
  const std::string every = quant.stats_every == 1 ? "" : fmt::format(" in every {}th request", quant.stats_every);
  return fmt::format("{}, {}, measured{}; attention {}", pi0::tools::counted(layers, "layer"), formats, every,
                     pi0::tools::name_of(quant.attention));
}

// Null without --record, and for a dry run.
std::unique_ptr<Recorder> start_recording(const ProgramOptions& options) {
  if (options.record.folder.empty()) return nullptr;
  if (!options.dry_run) return std::make_unique<Recorder>(options.record);
  pi0::server::check_recording_folder(options.record.folder);
  return nullptr;
}

std::vector<GaugeValue> component_rmse(const pi0::quant::StatsSnapshot& seen) {
  std::vector<GaugeValue> values;
  for (const char* kind : {"linear", "attention"}) {
    for (const pi0::quant::ComponentRow& row : pi0::quant::component_rows(seen, kind)) {
      values.push_back({row.mean_rmse.value_or(std::numeric_limits<double>::quiet_NaN()),
                        {{"component", row.component}, {"kind", kind}}});
    }
  }
  return values;
}

void write_statistics(const QuantSession& session) {
  if (const std::string written = session.write(); !written.empty()) spdlog::info("{}", written);
}

void refuse_statistics(pi0::server::Server& server) {
  server.on_signal(SIGUSR1, [] { spdlog::warn("SIGUSR1: there are no statistics to write"); });
  for (const auto& [method, path] : {std::pair("GET", "/stats"), std::pair("POST", "/stats/reset")}) {
    server.add_route({method, path, [] {
                        return HttpResponse{404,
                                            "no statistics: the server was started without --input-fmt, --output-fmt, "
                                            "--rules and --stats-output\n"};
                      }});
  }
}

void add_statistics(pi0::server::Server& server, QuantSession& session, double interval_seconds) {
  server.add_route({"GET", "/stats", [&] { return HttpResponse{200, session.report(), "application/json"}; }});
  server.add_route({"POST", "/stats/reset", [&] {
                      session.reset();
                      return HttpResponse{200, "OK\n"};
                    }});
  session.count_answers([&] { return server.answered(); });
  server.add_gauge({"pi0_measured_requests",
                    "Requests whose errors were measured, whether their client took the answer or not.",
                    [&] { return std::vector{GaugeValue{static_cast<double>(session.snapshot().measured)}}; }});
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

// Errors of ours speak for themselves and are the request's; those of libraries, as when memory ends, get a name, and
// are the model's.
Outcome outcome_of(Reply reply) {
  Outcome outcome{.answer = std::move(reply.answer), .error = reply.error};
  const auto fault_of_model = [&](const std::string& what) {
    outcome.is_fault_of_model = true;
    outcome.error = std::make_exception_ptr(std::runtime_error("the policy failed: " + what));
  };
  try {
    if (reply.error) std::rethrow_exception(reply.error);
  } catch (const c10::Error& failure) {
    fault_of_model(pi0::tools::failure_text(failure));
  } catch (const std::runtime_error&) {
  } catch (const std::logic_error&) {
  } catch (const std::exception& failure) {
    fault_of_model(failure.what());
  }
  return outcome;
}

// A made-up request through everything that a real one meets, so that libraries have the memory and threads they need
// before anybody waits. It draws no noise of the server's and is in no statistics.
void warm_up(const pi0::tools::LoadedPolicy& loaded, const pi0::tools::ModelOptions& options, QuantSession* session) {
  const auto start = std::chrono::steady_clock::now();
  const pi0::policy::PolicyConfig& config = loaded.policy->config();
  const pi0::model::ModelConfig& sizes = loaded.model->config();
  const auto request = pi0::tools::synthetic_observations(config.robot, /*count=*/1, /*seed=*/0).front().request;
  const pi0::model::ModelInputs inputs = loaded.policy->prepare(request);
  const at::Tensor noise = at::zeros({1, sizes.action_horizon, sizes.action_dim});
  const bool on_cpu = loaded.model->device().is_cpu();
  // A GPU's work is recorded at the second request of a kind, and all its steps are part of the kind.
  const std::int64_t steps = on_cpu ? 1 : pi0::tools::step_count(options, sizes);
  const auto call = [&] { loaded.policy->finish(loaded.sample_actions(inputs, noise, steps), inputs.state); };
  for (int run = 0; run < (on_cpu ? 1 : 3); ++run) session != nullptr ? session->warm_up(call) : call();
  spdlog::info("warmed up in {:.1f} s",
               std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

void serve_until_signal(pi0::server::Server& server, const QuantSession* session) {
  try {
    server.run();
  } catch (const std::exception&) {
    if (session != nullptr) write_statistics(*session);
    throw;
  }
  if (session == nullptr) return;
  std::exception_ptr failure;  // of the file: the table is not lost with it
  try {
    write_statistics(*session);
  } catch (const std::exception&) {
    failure = std::current_exception();
  }
  try {
    pi0::tools::print("{}", session->table());
    pi0::tools::flush_output();
  } catch (const std::exception& error) {  // the table is a courtesy
    spdlog::warn("{}", error.what());
  }
  if (failure) std::rethrow_exception(failure);
}

void serve(ProgramOptions& options, StartingSignals& starting) {
  if (options.list_layers) {
    return pi0::tools::print_layers(pi0::tools::chosen_sizes(options.model), /*as_json=*/false);
  }
  start_logging(options);
  spdlog::info("{}", pi0::tools::version());
  const auto warn = [](const std::string& line) { spdlog::warn("{}", line); };
  pi0::tools::PolicyParts parts = pi0::tools::load_parts(options.model);
  // What is wrong with the formats should show before the loading.
  const pi0::quant::PlanRequest plan = pi0::tools::plan_request(options.quant);
  const auto meta =
      pi0::tools::report_meta(parts.config.name, pi0::tools::chosen_device(options.model.device),
                              options.model.precision, pi0::tools::step_count(options.model, parts.sizes));
  log_configuration(options, parts.config.name, meta);
  const std::unique_ptr<Recorder> recorder = start_recording(options);
  const pi0::tools::LoadedPolicy loaded = pi0::tools::load_policy(std::move(parts), options.model, warn);
  spdlog::info("noise seed {}", *options.model.seed);
  std::unique_ptr<QuantSession> session;
  if (options.quant.asked()) {
    session = std::make_unique<QuantSession>(*loaded.model, options.quant, plan, meta, warn);
    spdlog::info("{}", quantized_text(options.quant, session->site_count()));
  }
  if (options.dry_run) return spdlog::info("dry run: everything is in place");

  const auto infer = [&](std::vector<Dict> requests) {
    CallWatch watch;
    if (session) {
      watch.kinds = session->begin(requests.size());
      watch.around = [&](bool measured, const auto& call) { session->count_batch(measured, call); };
    }
    std::vector<Outcome> outcomes;
    for (Reply& reply : loaded.policy->infer_together(requests, watch)) {
      Dict& request = requests[outcomes.size()];
      if (recorder && !reply.error) {
        recorder->record(std::move(request), std::move(reply.noise), reply.answer);
      }
      outcomes.push_back(outcome_of(std::move(reply)));
    }
    return outcomes;
  };
  options.server.decode_limits.fields = pi0::policy::request_fields(loaded.policy->config().robot);
  pi0::server::Server server(options.server, loaded.policy->metadata(), infer, options.max_batch,
                             [&] { warm_up(loaded, options.model, session.get()); });
  starting.over();
  session ? add_statistics(server, *session, options.stats_interval) : refuse_statistics(server);
  serve_until_signal(server, session.get());
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGUSR1, SIG_IGN);  // the program starts a second time, and keeps this
  pi0::tools::shorten_openmp_spins(argv);
  static StartingSignals& starting = *new StartingSignals;  // until the very end
  CLI::App app("Serves a Pi0 or Pi0.5 policy to openpi's clients.", "pi0-server");
  app.set_version_flag("--version", pi0::tools::version());
  app.footer(
      "Example:\n"
      "  pi0-server --config pi05_droid --checkpoint-dir DIR --input-fmt float8_e4m3 --output-fmt float16 \\\n"
      "    --stats-output stats.json");
  ProgramOptions options;
  pi0::server::add_program_options(app, options);
  app.callback([&] {
    pi0::server::settle(options, app);
    serve(options, starting);
  });
  return pi0::tools::run_program(app, argc, argv);
}
