// pi0 list-layers: every linear and attention of a model with its component and sizes, and whatever else has formats.
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
  const auto listing = std::make_shared<LayerListing>();
  add_place_options(*command, *options);
  command->add_flag("--all", listing->all, "KV caches and operations between products too");
  command->add_flag("--json", listing->as_json, "Print a JSON list");
  command->callback([options, listing] { print_layers(chosen_sizes(*options), *listing); });
}

}  // namespace pi0::tools
