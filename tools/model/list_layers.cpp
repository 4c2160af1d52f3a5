// pi0 list-layers: every linear and attention of a model with its component and sizes.
#include <CLI/CLI.hpp>
#include <memory>

#include "tools/common/commands.h"
#include "tools/common/model_options.h"
#include "tools/common/policy_parts.h"
#include "tools/common/print_layers.h"

namespace pi0::tools {

void add_list_layers(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("list-layers", "List every linear and attention with component and sizes; reads no weights");
  command->footer("Example:\n  pi0 list-layers --config pi05_droid");
  const auto options = std::make_shared<ModelOptions>();
  const auto as_json = std::make_shared<bool>(false);
  add_place_options(*command, *options);
  command->add_flag("--json", *as_json, "Print a JSON list");
  command->callback([options, as_json] { print_layers(chosen_sizes(*options), *as_json); });
}

}  // namespace pi0::tools
