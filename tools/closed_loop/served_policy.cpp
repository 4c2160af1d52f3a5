#include "tools/closed_loop/served_policy.h"

#include <CLI/CLI.hpp>

#include "tools/common/default_checkpoints.h"
#include "tools/common/model_options.h"
#include "tools/common/policy_parts.h"

namespace pi0::tools {

ServedPolicy served_policy(const std::vector<std::string>& server_arguments) {
  CLI::App server;
  server.allow_extras();
  ModelOptions model;
  std::string prompt, environment = default_environment;
  server.add_option("--config,--policy.config", model.config)->take_last();
  server.add_option("--config-file", model.config_file)->take_last();
  server.add_option("--checkpoint-dir,--policy.dir", model.checkpoint_dir)->transform(or_cached())->take_last();
  add_lerobot_version_option(server, model.lerobot_version)->take_last();
  server.add_flag("--random-weights", model.random_weights);
  server.add_option("--default-prompt", prompt)->take_last();
  server.add_option("--env", environment)->take_last();
  server.parse(std::vector<std::string>(server_arguments.rbegin(), server_arguments.rend()));

  const bool is_named = !model.config_file.empty() || !model.checkpoint_dir.empty() || model.random_weights;
  if (const auto standard = default_checkpoints().find(CLI::detail::to_lower(environment));
      model.config.empty() && !is_named && standard != default_checkpoints().end()) {
    model.config = standard->second.config;
  }
  return {chosen_policy(model), !model.config.empty(), !prompt.empty() && prompt != "None"};
}

}  // namespace pi0::tools
