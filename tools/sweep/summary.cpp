#include "tools/sweep/summary.h"

#include <fmt/format.h>

#include <algorithm>

#include "protocol/files.h"
#include "tools/common/format_fields.h"
#include "tools/common/print.h"
#include "tools/common/results.h"
#include "tools/common/shell_word.h"
#include "tools/common/text_table.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The bits of a weight with its share of scales, of an input and of an output; a rules file has only the first.
std::string bits_of(const Json& entry) {
  const auto formats = formats_in(entry);
  const std::string weight = fmt::format("{:.4g}", entry["weight_bits"].get<double>());
  if (!formats) return weight + "/-/-";
  const double input = bits_per_value(formats->as_operand(formats->input));
  return fmt::format("{}/{:.4g}/{:.4g}", weight, input, bits_per_value(formats->output));
}

std::string cosine(const Json& value) { return value.is_null() ? "-" : fmt::format("{:.6f}", value.get<double>()); }

// Mean relative error of each component's layers of one kind, unless no entry has them.
void print_components(const std::vector<Json>& entries, const char* key, const std::string& title) {
  std::vector<std::vector<std::string>> lines = {{title}};
  for (const Json& entry : entries) {
    const Json components = entry.value(key, Json::object());
    for (const auto& [component, unused] : components.items()) {
      if (std::ranges::find(lines.front(), component) == lines.front().end()) lines.front().push_back(component);
    }
  }
  if (lines.front().size() == 1) return;
  for (const Json& entry : entries) {
    auto& line = lines.emplace_back(1, setting_name(entry));
    for (std::size_t i = 1; i < lines.front().size(); ++i) {
      line.push_back(figure(entry.value(key, Json::object()).value(lines.front()[i], Json())));
    }
  }
  print("\n{}", text_table(lines));
}

void print_table(const std::vector<Json>& entries) {
  std::vector<std::vector<std::string>> lines = {{"formats", "bits w/i/o", "RMSE", "std error", "rel error",
                                                  "rel floor", "cosine", "worst cosine", "worst RMSE", "observation"}};
  for (const Json& entry : entries) {
    const bool is_below = entry["below_floor"] == true;
    lines.push_back({setting_name(entry), bits_of(entry), figure(entry["action_rmse"]) + (is_below ? floor_mark : " "),
                     figure(entry["action_rmse_se"]), figure(entry["action_rel_rmse"]),
                     figure(entry["action_rel_rmse_floor"]), cosine(entry["action_cosine"]),
                     cosine(entry["action_cosine_worst"]), figure(entry["worst_observation_rmse"]),
                     entry["worst_observation"].get<std::string>()});
  }
  print("{}", text_table(lines, LastColumn::names));
  print("{}", floor_note(entries.front()));
  print_components(entries, "components_rel_rmse", "relative RMSE of linears, mean");
  print_components(entries, "components_vector_rel_rmse", "relative RMSE between products, mean");
}

}  // namespace

std::string figure(const Json& value) { return value.is_null() ? "-" : fmt::format("{:.3g}", value.get<double>()); }

std::string floor_note(const Json& entry) {
  if (entry["action_rmse_floor"].is_null()) return "";
  return fmt::format(
      "floor: rounding alone changes actions by an RMSE of up to {} ({} of their size); {} marks what is not above "
      "it\n",
      figure(entry["action_rmse_floor"]), figure(entry["action_rel_rmse_floor"]), floor_mark);
}

void print_next(const fs::path& folder) {
  fs::path page = folder.has_filename() ? folder : folder.parent_path();
  page += ".html";
  print(stderr, "sweep: next: pi0 report {} --output {}\n", shell_word(folder.string()), shell_word(page.string()));
}

void write_summary(const fs::path& folder, const std::vector<Json>& entries) {
  protocol::write_whole(folder / "summary.csv", table_of(entries));
  protocol::write_whole(folder / "summary.json", text_of(entries));
  print_table(entries);
  print(stderr, "sweep: {} in {}\n", counted(entries.size(), "setting"), (folder / "summary.json").string());
  print_next(folder);
}

}  // namespace pi0::tools
