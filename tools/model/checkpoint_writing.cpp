#include "tools/model/checkpoint_writing.h"

#include <cstddef>
#include <set>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "model/checkpoint.h"
#include "model/packed_file.h"
#include "model/pi0.h"
#include "model/weight_source.h"
#include "protocol/files.h"
#include "tools/common/progress.h"

namespace pi0::tools {

namespace fs = std::filesystem;

namespace {

std::set<std::string> weights_of_linears(const model::Pi0& model, const std::string& prefix) {
  std::set<std::string> names;
  for (const model::MatmulSite& site : model.sites().all()) {
    if (dynamic_cast<const model::Linear*>(&site) != nullptr) names.insert(prefix + site.path + ".weight");
  }
  return names;
}

}  // namespace

void fill_new_folder(const fs::path& folder, const std::function<void()>& write) {
  if (folder.empty()) throw std::runtime_error("the folder to make has no name");
  if (fs::exists(folder) && !fs::is_directory(folder)) {
    throw std::runtime_error(folder.string() + ": is a file; expected a folder to make");
  }
  if (fs::exists(folder) && !fs::is_empty(folder)) {
    throw std::runtime_error(folder.string() + ": exists and is not empty");
  }
  const bool is_new = fs::create_directories(folder);
  try {
    write();
  } catch (...) {
    std::error_code ignored;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
      fs::remove_all(entry, ignored);
    }
    if (is_new) fs::remove(folder, ignored);
    throw;
  }
}

void write_openpi_weights(const fs::path& file, const model::ModelConfig& sizes, const std::string& prefix,
                          const StoredDtype& dtype, const ReadParameter& read, const std::string& label,
                          const StopSignals& stop, const std::optional<Packed>& packed) {
  model::ShapeRecorder shapes;
  const model::Pi0 model(sizes, shapes, model::Precision::float32, {});
  Progress progress(label, Progress::Unit::items);
  std::vector<model::SafetensorsPart> parts;
  std::size_t done = 0, reads = 0;
  for (const model::ShapeRecorder::Parameter& parameter : shapes.parameters()) {
    if (parameter.name == model::embedding_name) continue;
    const at::ScalarType stored = dtype(parameter.name);
    parts.push_back({prefix + parameter.name, stored, parameter.shape, [&, parameter, stored] {
                       stop.check();
                       const bool is_head = parameter.name == model::embedding_alias;
                       at::Tensor values =
                           read(is_head ? model::embedding_name : parameter.name, parameter.shape, stored);
                       progress.update(++done, reads);
                       return values;
                     }});
  }
  const std::set<std::string> weights = weights_of_linears(model, prefix);
  reads = parts.size() + (packed ? weights.size() * packed->formats.size() : 0);  // each format is made anew
  protocol::WholeFile whole(file);
  const auto write = [&](const void* data, std::size_t size) { whole.write(data, size); };
  if (packed) {
    model::write_packed(write, parts, weights, packed->formats);
  } else {
    model::write_safetensors(write, parts, {{prefix + model::embedding_name, prefix + model::embedding_alias}});
  }
  whole.keep();
  if (!packed) return;
  // Read-only: servers map it, so a change in place would change their weights.
  constexpr fs::perms writable = fs::perms::owner_write | fs::perms::group_write | fs::perms::others_write;
  fs::permissions(file, writable, fs::perm_options::remove);
}

std::uint64_t parameter_count(const model::ModelConfig& sizes) {
  model::ShapeRecorder shapes;
  const model::Pi0 model(sizes, shapes, model::Precision::float32, {});
  std::uint64_t count = 0;
  for (const at::Tensor& parameter : model.parameters()) count += static_cast<std::uint64_t>(parameter.numel());
  return count;
}

}  // namespace pi0::tools
