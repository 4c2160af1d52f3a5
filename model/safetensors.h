// A safetensors file, mapped into memory. Knows bytes, dtypes and shapes; no parameter names.
// Reference: the format as documented by huggingface/safetensors, as strict as its own reader.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "model/checkpoint_error.h"
#include "model/write_bytes.h"

namespace pi0::model {

class SafetensorsFile {
 public:
  struct Entry {
    at::ScalarType dtype;
    std::vector<std::int64_t> shape;
    std::size_t begin = 0;  // bytes from the start of the file
    std::size_t end = 0;
  };

  // Maps the file and checks the whole header: length, JSON, metadata, dtypes, shapes, and that the tensors
  // fill the rest of the file without gap or overlap. Throws CheckpointError.
  explicit SafetensorsFile(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }  // __metadata__

  // Throws CheckpointError when the file has no tensor of that name.
  const Entry& entry(const std::string& name) const;

  // A copy of a tensor in its own dtype.
  at::Tensor tensor(const std::string& name) const;

  // Copies a tensor into `target`, which has the same number of elements and any dtype, a slice at a time. Slices are
  // cast to `through` first. Each slice's pages leave the resident set before the next is read.
  void copy_to(const std::string& name, const at::Tensor& target, at::ScalarType through) const;

  // A view of the tensor in the map, to be read only. It keeps the map. Its pages leave the resident set when the last
  // reference is gone. Undefined if the file does not align the tensor to its element size.
  at::Tensor lend(const std::string& name) const;

  // A tensor's bytes in the map, while this object lives.
  std::span<const std::byte> bytes(const std::string& name) const;

 private:
  std::filesystem::path path_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
  std::shared_ptr<const std::byte> data_;  // the map
};

// One tensor to be written. `values` is called when its turn comes, so that a file may be larger than memory.
struct SafetensorsPart {
  std::string name;
  at::ScalarType dtype;
  std::vector<std::int64_t> shape;
  std::function<at::Tensor()> values;
};

// `metadata` becomes __metadata__ unless empty. The first tensor begins at a multiple of `alignment` bytes. Throws
// CheckpointError for a dtype that safetensors does not have, and what `write` throws.
void write_safetensors(const WriteBytes& write, const std::vector<SafetensorsPart>& parts,
                       const std::map<std::string, std::string>& metadata = {}, std::size_t alignment = 8);
void write_safetensors(const WriteBytes& write, const std::map<std::string, at::Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace pi0::model
