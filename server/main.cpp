// pi0-server: serves a Pi0 or Pi0.5 policy over openpi's WebSocket protocol.
#include <ATen/Parallel.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "server/server_options.h"
#include "tools/command_line.h"
#include "tools/list_layers.h"
#include "tools/version.h"

namespace {

using pi0::server::ProgramOptions;

void start_logging(const ProgramOptions& options) {
  std::vector<spdlog::sink_ptr> sinks = {std::make_shared<spdlog::sinks::stderr_color_sink_mt>()};
  if (!options.log_file.empty()) {
    sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.log_file.string()));
  }
  auto logger = std::make_shared<spdlog::logger>("", sinks.begin(), sinks.end());
  logger->set_level(spdlog::level::from_str(options.log_level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

void log_configuration(const ProgramOptions& options, const pi0::policy::PolicyConfig& policy,
                       std::int64_t num_steps) {
  const pi0::tools::ModelOptions& model = options.model;
  spdlog::info("policy {} from {}{}", policy.name,
               model.checkpoint_dir.empty() ? "no checkpoint" : model.checkpoint_dir.string(),
               model.random_weights ? " with RANDOM WEIGHTS: its actions mean nothing" : "");
  spdlog::info("device {}, precision {}, kernels {}, {} threads, {} denoise steps",
               pi0::tools::chosen_device(model.device).str(),
               model.precision == pi0::model::Precision::bfloat16 ? "bfloat16" : "float32",
               model.kernels == pi0::tools::Kernels::reference ? "reference" : "fast",
               model.threads > 0 ? model.threads : at::get_num_threads(), num_steps);
}

void serve(ProgramOptions& options) {
  if (options.list_layers) {
    return pi0::tools::print_layers(pi0::tools::chosen_sizes(options.model), /*as_json=*/false);
  }
  start_logging(options);
  spdlog::info("{}", pi0::tools::version());
  pi0::tools::PolicyParts parts = pi0::tools::load_parts(options.model);
  log_configuration(options, parts.config, pi0::tools::step_count(options.model, parts.sizes));
  const auto policy = pi0::tools::load_policy(
      std::move(parts), options.model, [](const std::string& line) { spdlog::warn("{}", line); });
  spdlog::info("noise seed {}", *options.model.seed);
  if (options.dry_run) return spdlog::info("dry run: everything is in place");

  pi0::server::Server server(
      options.server, policy->metadata(),
      [&](const pi0::protocol::Dict& request) { return policy->infer(request); });
  server.run();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Serves a Pi0 or Pi0.5 policy to openpi's clients.", "pi0-server");
  app.set_version_flag("--version", pi0::tools::version());
  ProgramOptions options;
  pi0::server::add_program_options(app, options);
  app.callback([&] {
    pi0::server::settle(options, app);
    serve(options);
  });
  return pi0::tools::run_program(app, argc, argv);
}
