// The store that orbax writes by default: a manifest and a B+tree whose values lie in a few large files.
#pragma once

#include <map>
#include <mutex>

#include "model/orbax/key_values.h"
#include "model/orbax/ocdbt_format.h"

namespace pi0::orbax {

inline constexpr const char* manifest_name = "manifest.ocdbt";

class Ocdbt : public KeyValueStore {
 public:
  // Reads the manifest and every node of the newest version, and checks that all values lie within their files. Throws
  // CheckpointError, also for a tree that would take more than 256 MiB.
  explicit Ocdbt(std::filesystem::path folder);
  std::vector<std::string> array_keys() const override;
  std::optional<Value> find(const std::string& key) const override;

 private:
  struct Place {
    bool is_inline;
    std::string bytes;  // if inline
    std::string file;   // else
    std::uint64_t offset;
    std::uint64_t size;
  };
  std::shared_ptr<const File> open(const std::string& path) const;
  void read_node(const FileName& file, const Part& part, int height, const std::string& prefix, Budget& budget);

  std::filesystem::path folder_;
  std::uint64_t node_limit_ = 0;
  std::map<std::string, Place> values_;
  std::string last_key_;  // while the tree is read
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::weak_ptr<const File>> files_;  // guarded by mutex_
};

}  // namespace pi0::orbax
