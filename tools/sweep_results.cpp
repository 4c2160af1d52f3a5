#include "tools/sweep_results.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "model/json_fields.h"
#include "protocol/files.h"
#include "tools/csv.h"
#include "tools/print.h"

namespace pi0::tools {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string text_of(const Json& content) {
  return content.dump(1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) + "\n";
}

void write_result(const fs::path& folder, const SweepResult& result) {
  const Json content = {{"meta", result.meta},   {"names", result.names}, {"entry", result.entry},
                        {"place", result.place}, {"of", result.of}};
  protocol::write_whole(folder / "result.json", text_of(content));
}

SweepResult read_result(const fs::path& file) {
  const Json content = model::read_json(file);
  for (const char* key : {"meta", "names", "entry", "place", "of"}) {
    if (content.is_object() && content.contains(key)) continue;
    throw std::runtime_error(file.string() + ": is no result of a sweep, it has no '" + key +
                             "'; remove it to measure the setting again");
  }
  try {
    return {content["meta"], content["names"], content["entry"], content["place"].get<std::size_t>(),
            content["of"].get<std::size_t>()};
  } catch (const Json::exception& error) {
    throw std::runtime_error(file.string() + ": " + error.what());
  }
}

std::string table_of(const std::vector<Json>& entries) {
  std::vector<std::string> columns, components;
  const auto note = [](std::vector<std::string>& names, const std::string& name) {
    if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  };
  for (const Json& entry : entries) {
    for (const auto& [name, value] : entry.items()) {
      if (!value.is_structured()) note(columns, name);
    }
    for (const auto& [name, value] : entry["components"].items()) note(components, name);
  }
  std::vector<Json> header(columns.begin(), columns.end());
  for (const std::string& name : components) header.push_back("rmse_" + name);
  std::string csv = csv_line(header);
  for (const Json& entry : entries) {
    std::vector<Json> fields;
    for (const std::string& name : columns) fields.push_back(entry.value(name, Json()));
    for (const std::string& name : components) fields.push_back(entry["components"].value(name, Json()));
    csv += csv_line(fields);
  }
  return csv;
}

void write_summary(const fs::path& folder, const std::vector<Json>& entries) {
  protocol::write_whole(folder / "summary.csv", table_of(entries));
  protocol::write_whole(folder / "summary.json", text_of(entries));
  print(stderr, "sweep: {} in {}\n", counted(entries.size(), "setting"), (folder / "summary.json").string());
}

}  // namespace pi0::tools
