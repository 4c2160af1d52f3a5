#include "model/orbax/array_store.h"

#include "model/checkpoint_error.h"

namespace pi0::orbax {

ArrayStore::ArrayStore(const std::filesystem::path& folder) : store_(open_store(folder)) {
  constexpr std::uint64_t largest_metadata = 1 << 20;
  for (const std::string& key : store_->array_keys()) {
    const Value value = *store_->find(key);
    const std::string source = folder.string() + ": '" + key + "'";
    if (value.size() > largest_metadata) {
      throw model::CheckpointError(source + ": has " + std::to_string(value.size()) + " bytes, expected at most " +
                                   std::to_string(largest_metadata));
    }
    const bool is_version_2 = key.ends_with(".zarray");
    const auto parse = is_version_2 ? parse_zarray : parse_zarr_json;
    const std::string name = key.substr(0, key.rfind('/'));
    if (!layouts_.emplace(name, parse(value.text(), source)).second) {
      throw model::CheckpointError(folder.string() + ": array '" + name + "' has both .zarray and zarr.json");
    }
  }
  if (layouts_.empty()) throw model::CheckpointError(folder.string() + ": holds no arrays");
}

}  // namespace pi0::orbax
