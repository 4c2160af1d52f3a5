// A folder as a store of keys and values, whichever way orbax wrote it. Knows no arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace pi0::orbax {

// A file open for reading. Throws CheckpointError when it cannot be opened.
class File {
 public:
  explicit File(std::filesystem::path path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }  // when it was opened
  // Throws CheckpointError when the file ends before or cannot be read.
  void read(std::uint64_t offset, std::span<std::byte> target) const;

 private:
  std::filesystem::path path_;
  int descriptor_;
  std::uint64_t size_ = 0;
};

// A value: bytes in memory, or a part of a file.
class Value {
 public:
  Value(std::string where, std::string bytes);
  // Throws CheckpointError when the file is shorter.
  Value(const std::string& key, std::shared_ptr<const File> file, std::uint64_t offset, std::uint64_t size);

  std::uint64_t size() const { return size_; }
  void read(std::uint64_t offset, std::span<std::byte> target) const;
  std::string text() const;  // all of it
  // Throws CheckpointError when it does not lie within this value.
  Value part(std::uint64_t offset, std::uint64_t size) const;
  const std::string& where() const { return where_; }  // file and key, for messages

 private:
  std::string where_;
  std::string bytes_;  // when there is no file
  std::shared_ptr<const File> file_;
  std::uint64_t offset_ = 0;  // in the bytes or the file
  std::uint64_t size_ = 0;
};

class KeyValueStore {
 public:
  virtual ~KeyValueStore() = default;

  // The keys NAME/.zarray and NAME/zarr.json, sorted.
  virtual std::vector<std::string> array_keys() const = 0;

  // Nothing when there is no such key. Throws CheckpointError when its file is missing or too short. Safe to call from
  // several threads.
  virtual std::optional<Value> find(const std::string& key) const = 0;
};

bool is_array_key(const std::string& key);

// OCDBT if there is a manifest.ocdbt, else a folder per array. Throws CheckpointError.
std::unique_ptr<KeyValueStore> open_store(const std::filesystem::path& folder);

}  // namespace pi0::orbax
