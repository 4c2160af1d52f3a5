// pi0-server: serves a Pi0 or Pi0.5 policy over openpi's WebSocket protocol.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "model/policy/state_range.h"
#include "protocol/openpi_messages.h"
#include "server/batches.h"
#include "server/end_signals.h"
#include "tools/common/command_line.h"
#include "tools/common/failure.h"
#include "tools/common/format_fields.h"
#include "tools/common/load_policy.h"
#include "tools/common/observations.h"
#include "tools/common/openmp_spins.h"
#include "tools/common/policy_parts.h"
#include "tools/common/print.h"
#include "tools/common/print_layers.h"
#include "tools/common/quant_session.h"
#include "tools/common/results.h"
#include "tools/common/stopwatch.h"
#include "tools/common/version.h"
#include "tools/serve/metadata.h"
#include "tools/serve/served_weights.h"
#include "tools/serve/server_options.h"
#include "tools/serve/statistics.h"

namespace pi0::tools {
namespace {

using policy::CallObserver;
using policy::Reply;
using protocol::Dict;
using server::Outcome;
using server::Recorder;

// Before the server serves, a signal ends the program at once: nothing would be lost. After it has served, signals are
// ignored until the program has ended by itself.
class StartingSignals {
 public:
  StartingSignals() {
    for (const int signal : server::end_signals()) signals_.add(signal);
    signals_.add(SIGUSR1);  // ignored before there are statistics, and after
    wait();
    thread_ = std::thread([this] { io_.run(); });
  }
  void over() { is_over_ = true; }

 private:
  void wait() {
    signals_.async_wait([this](const boost::system::error_code& error, int signal) {
      if (error) return;
      if (!is_over_ && signal != SIGUSR1) {
        print(stderr, "pi0-server: {}: ended while starting\n", server::name_of_signal(signal));
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
  const ModelOptions& model = options.model;
  spdlog::info("policy {} from {}{}", policy,
               model.checkpoint_dir.empty() ? "no checkpoint" : model.checkpoint_dir.string(),
               model.random_weights ? " with RANDOM WEIGHTS: its actions mean nothing" : "");
  const int threads = model.threads > 0 ? model.threads : at::get_num_threads();
  spdlog::info("{} on {}, kernels {}, {}, {}", meta["precision"].get<std::string>(), meta["device"].get<std::string>(),
               name_of(model.kernels), counted(static_cast<std::size_t>(threads), "CPU thread"),
               counted(meta["num_steps"].get<std::size_t>(), "denoise step"));
}

std::string quantized_text(const QuantOptions& quant, std::size_t layers) {
  const std::string formats =
      !quant.rules.empty() ? "by " + quant.rules.string() : setting_name(fields_of(formats_of(quant)));
  const std::string measured = quant.no_statistics ? "not measured"
                               : quant.stats_every == 1
                                   ? "measured"
                                   : fmt::format("measured in every {}th request", quant.stats_every);
  return fmt::format("{}, {}, {}; attention {}", counted(layers, "layer"), formats, measured, name_of(quant.attention));
}

// Null without --record, and for a dry run.
std::unique_ptr<Recorder> start_recording(const ProgramOptions& options) {
  if (options.record.folder.empty()) return nullptr;
  if (!options.dry_run) return std::make_unique<Recorder>(options.record);
  server::check_recording_folder(options.record.folder);
  return nullptr;
}

// Our own errors are about the request and keep their text. Errors of libraries, for example out of memory, are about
// the model and get a prefix.
Outcome outcome_of(Reply reply) {
  Outcome outcome{.answer = std::move(reply.answer), .error = reply.error};
  const auto fault_of_model = [&](const std::string& what) {
    outcome.is_fault_of_model = true;
    outcome.error = std::make_exception_ptr(std::runtime_error("the policy failed: " + what));
  };
  try {
    if (reply.error) std::rethrow_exception(reply.error);
  } catch (const c10::Error& failure) {
    fault_of_model(failure_text(failure));
  } catch (const std::runtime_error&) {
  } catch (const std::logic_error&) {
  } catch (const std::exception& failure) {
    fault_of_model(failure.what());
  }
  return outcome;
}

// The least that a request can be: no camera and one prompt position.
void shrink(model::ModelInputs& inputs) {
  for (at::Tensor& mask : inputs.image_masks) mask = at::zeros_like(mask);
  inputs.token_mask.slice(/*dim=*/1, /*start=*/1).zero_();
}

// A synthetic request, so that libraries have their memory and threads before the first client waits. It draws no noise
// and is not in the statistics. On a CPU a whole one would take as long as the client's own.
void warm_up(const LoadedPolicy& loaded, const ModelOptions& options, QuantSession* session) {
  Stopwatch watch;
  const policy::PolicyConfig& config = loaded.policy->config();
  const model::ModelConfig& sizes = loaded.model->config();
  const auto request = synthetic_observations(config.robot, /*count=*/1, /*seed=*/0).front().request;
  model::ModelInputs inputs = loaded.policy->prepare(request);
  // Not zeros, of which some formats make NaN (docs/formats.md).
  const at::Tensor noise = at::ones({1, sizes.action_horizon, sizes.action_dim});
  const bool on_cpu = loaded.model->device().is_cpu();
  if (on_cpu) shrink(inputs);
  const model::MaskedInputs masked = on_cpu ? model::MaskedInputs::skip : options.masked;
  // A GPU's work is recorded at the second request of a kind, and all its steps are part of the kind.
  const std::int64_t steps = on_cpu ? 1 : step_count(options, sizes);
  const auto call = [&] { loaded.policy->finish(loaded.sample_actions(inputs, noise, steps, masked), inputs.state); };
  for (int run = 0; run < (on_cpu ? 1 : 3); ++run) session != nullptr ? session->warm_up(call) : call();
  spdlog::info("warmed up in {:.1f} s", watch.lap());
}

std::vector<server::GaugeValue> outside_by_dimension(const policy::StateRange& range) {
  std::vector<server::GaugeValue> values;
  for (const auto& [dimension, outside] : range.counts()) {
    values.push_back({static_cast<double>(outside), {{"dimension", dimension}}});
  }
  return values;
}

// The hooks that the options ask for.
struct ServedHooks {
  std::unique_ptr<QuantSession> session;          // null without statistics
  std::unique_ptr<quant::Attachment> unmeasured;  // with --no-statistics
};

ServedHooks attach_hooks(model::Pi0& model, const QuantOptions& options, const quant::PlanRequest& plan,
                         const nlohmann::ordered_json& meta, const std::function<void(const std::string&)>& warn) {
  ServedHooks hooks;
  if (options.no_statistics) {
    hooks.unmeasured = attach_unmeasured(model, options, plan, warn);
    spdlog::info("{}", quantized_text(options, hooks.unmeasured->site_count()));
  } else if (options.asked()) {
    hooks.session = std::make_unique<QuantSession>(model, options, plan, meta, warn);
    spdlog::info("{}", quantized_text(options, hooks.session->site_count()));
  }
  return hooks;
}

// Records the answered requests, unless `recorder` is null.
std::vector<Outcome> outcomes_of(std::vector<Reply> replies, std::vector<Dict>& requests, Recorder* recorder) {
  std::vector<Outcome> outcomes;
  for (Reply& reply : replies) {
    Dict& request = requests[outcomes.size()];
    if (recorder != nullptr && !reply.error) recorder->record(std::move(request), std::move(reply.noise), reply.answer);
    outcomes.push_back(outcome_of(std::move(reply)));
  }
  return outcomes;
}

void serve(const ProgramOptions& options, StartingSignals& starting) {
  if (options.list_layers) {
    return print_layers(chosen_sizes(options.model), {});
  }
  start_logging(options);
  spdlog::info("{}", version());
  const auto warn = [](const std::string& line) { spdlog::warn("{}", line); };
  PolicyParts parts = load_parts(options.model);
  // Errors in the formats should show before loading.
  if (options.quant.no_statistics && !options.quant.has_formats() && options.quant.rules.empty()) {
    throw std::invalid_argument("--no-statistics: there is nothing to measure without formats or --rules");
  }
  check_split_errors(options.quant);
  const quant::PlanRequest plan = plan_request(options.quant);
  const auto meta = report_meta(parts.config.name, chosen_device(options.model.device), options.model.precision,
                                step_count(options.model, parts.sizes));
  log_configuration(options, parts.config.name, meta);
  const std::unique_ptr<Recorder> recorder = start_recording(options);
  const ServedWeights weights(options.model);
  const LoadedPolicy loaded = load_policy(std::move(parts), options.model, warn);
  spdlog::info("noise seed {}", loaded.seed);
  const ServedHooks hooks = attach_hooks(*loaded.model, options.quant, plan, meta, warn);
  QuantSession* const session = hooks.session.get();
  if (options.dry_run) return spdlog::info("dry run: everything is in place");

  const policy::PolicyConfig& config = loaded.policy->config();
  policy::StateRange state_range(config.robot, config.normalization, warn);
  const auto infer_by = [&](auto policy_infer) {  // a member of Policy
    return [&, policy_infer](std::vector<Dict> requests) {
      weights.check();
      CallObserver observer;
      observer.saw_state = [&](std::span<const double> state) { state_range.check(state); };
      if (session != nullptr) {
        observer.measured = session->begin(requests.size());
        observer.run = [&](bool measured, const auto& call) { session->count_batch(measured, call); };
      }
      return outcomes_of(std::invoke(policy_infer, *loaded.policy, requests, observer), requests, recorder.get());
    };
  };
  server::ServerOptions limited = options.server;
  limited.decode_limits.fields = policy::request_fields(config.robot);
  limited.decode_limits.fields.emplace_back(protocol::batch_key);
  server::Server server(limited, served_metadata(config),
                        server::with_batches(infer_by(&policy::Policy::infer_together),
                                             infer_by(&policy::Policy::infer_batch), options.max_observations),
                        options.max_batch, [&] { warm_up(loaded, options.model, session); });
  starting.over();
  server.add_gauge({"pi0_state_values_out_of_range",
                    "State values of requests that are far outside the range of the policy's statistics.",
                    [&] { return outside_by_dimension(state_range); }});
  session != nullptr ? add_statistics(server, *session, options.stats_interval) : refuse_statistics(server);
  serve_until_signal(server, session);
}

}  // namespace
}  // namespace pi0::tools

int main(int argc, char** argv) {
  std::signal(SIGUSR1, SIG_IGN);
  pi0::tools::forget_openmp_spins();
  static auto& starting = *new pi0::tools::StartingSignals;  // never destroyed
  CLI::App app("Serves a Pi0 or Pi0.5 policy to openpi's clients.", "pi0-server");
  app.set_version_flag("--version", pi0::tools::version());
  app.footer(
      "Clients may connect with any path, for example openpi's /, vLLM-Omni's /v1/realtime/robot/openpi, whose\n"
      "answers are the action array alone, or SGLang's /openpi/policy.\n\n"
      "Example:\n"
      "  pi0-server --config pi05_droid --checkpoint-dir DIR --input-fmt float8_e4m3 --output-fmt float16 \\\n"
      "    --stats-output stats.json");
  pi0::tools::ProgramOptions options;
  pi0::tools::add_program_options(app, options);
  app.callback([&] {
    pi0::tools::settle(options, app);
    pi0::tools::serve(options, starting);
  });
  pi0::tools::end_program(pi0::tools::run_program(app, argc, argv));
}
