// The arrays that orbax saved into a folder, by the names it gave them.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "model/orbax/array_reader.h"
#include "model/orbax/key_values.h"
#include "model/orbax/zarr.h"

namespace pi0::orbax {

class ArrayStore {
 public:
  // Reads the metadata of every array and no elements. Throws CheckpointError.
  explicit ArrayStore(const std::filesystem::path& folder);

  // By name, such as params.PaliGemma.img.head.bias.value.
  const std::map<std::string, ZarrLayout>& layouts() const { return layouts_; }

  // Valid while this store lives. Throws std::out_of_range.
  ArrayReader reader(const std::string& name) const { return {*store_, name, layouts_.at(name)}; }

 private:
  std::unique_ptr<KeyValueStore> store_;
  std::map<std::string, ZarrLayout> layouts_;
};

}  // namespace pi0::orbax
