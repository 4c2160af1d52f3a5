#include "tools/closed_loop/served_setting.h"

#include <algorithm>
#include <stdexcept>

#include "tools/common/format_fields.h"
#include "tools/common/results.h"

namespace pi0::tools {

std::vector<ServedSetting> served_settings(const ClosedLoopOptions& options) {
  std::vector<ServedSetting> settings;
  const auto add = [&](ServedSetting setting) {
    if (std::ranges::find(settings, setting.folder, &ServedSetting::folder) != settings.end()) {
      throw std::invalid_argument("'" + setting.folder + "' is asked for twice; results would share a folder");
    }
    settings.push_back(std::move(setting));
  };
  if (options.unquantized) add({unquantized_name, {{"input_fmt", nullptr}, {"output_fmt", nullptr}}, {}});
  if (options.has_formats) {
    for (const quant::SiteFormats& formats : options.formats.settings()) {
      add({folder_of(formats), fields_of(formats), arguments_of(formats)});
    }
  }
  for (const std::filesystem::path& rules : options.rules) {
    add({rules_folder(rules),
         {{"input_fmt", nullptr}, {"output_fmt", nullptr}, {"rules", rules.string()}},
         {"--rules", rules.string()}});
  }
  return settings;
}

}  // namespace pi0::tools
