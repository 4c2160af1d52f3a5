#include "model/orbax/array_folders.h"

#include <algorithm>

#include "model/checkpoint_error.h"
#include "model/orbax/byte_reader.h"

namespace pi0::orbax {

namespace fs = std::filesystem;

ArrayFolders::ArrayFolders(fs::path folder) : folder_(std::move(folder)) {
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder_, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    for (const char* metadata : {".zarray", "zarr.json"}) {
      std::error_code absent;
      if (!fs::is_regular_file(entry->path() / metadata, absent)) continue;
      array_keys_.push_back(entry->path().filename().string() + "/" + metadata);
      if (!is_printable(array_keys_.back())) {
        throw model::CheckpointError(folder_.string() + ": the name of an array's folder is not printable ASCII");
      }
    }
  }
  if (error) throw model::CheckpointError(folder_.string() + ": cannot be listed: " + error.message());
  if (array_keys_.empty()) {
    throw model::CheckpointError(folder_.string() +
                                 ": holds no arrays: neither manifest.ocdbt nor folders with .zarray or zarr.json");
  }
  std::ranges::sort(array_keys_);
}

std::optional<Value> ArrayFolders::find(const std::string& key) const {
  std::error_code error;
  const fs::file_status status = fs::status(folder_ / key, error);
  if (status.type() == fs::file_type::not_found) return std::nullopt;
  auto file = std::make_shared<const File>(folder_ / key);
  const std::uint64_t size = file->size();
  return Value(key, std::move(file), 0, size);
}

}  // namespace pi0::orbax
