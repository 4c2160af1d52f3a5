// The store that orbax writes with use_ocdbt=False: a folder per array, a file per value.
#pragma once

#include "model/orbax/key_values.h"

namespace pi0::orbax {

class ArrayFolders : public KeyValueStore {
 public:
  // Throws CheckpointError when the folder holds no arrays.
  explicit ArrayFolders(std::filesystem::path folder);
  std::vector<std::string> array_keys() const override { return array_keys_; }
  std::optional<Value> find(const std::string& key) const override;

 private:
  std::filesystem::path folder_;
  std::vector<std::string> array_keys_;
};

}  // namespace pi0::orbax
