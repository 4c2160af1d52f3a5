// OCDBT's blocks: TensorStore's store of keys and values as a B+tree of immutable nodes in files. Knows bytes; opens no
// files. Reference: TensorStore's page "OCDBT Key-Value Store driver", and the files it writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace pi0::orbax {

// What a block starts with, read as big-endian.
enum class BlockKind : std::uint32_t { manifest = 0x0cdb3a2a, node = 0x0cdb20de };

// The body of a block, decoded. `source` begins the messages, here and below. Throws CheckpointError when magic,
// length, version, compression or checksum are wrong, or the body decodes to more than `limit` bytes.
std::vector<std::byte> block_body(std::span<const std::byte> block, BlockKind kind, std::uint64_t limit,
                                  const std::string& source);

// What a store may take in memory: entries, keys, file names and values in nodes.
class Budget {
 public:
  explicit Budget(std::uint64_t bytes) : bytes_(bytes), left_(bytes) {}
  void spend(std::uint64_t bytes, const std::string& source);  // throws CheckpointError when nothing is left

 private:
  std::uint64_t bytes_;
  std::uint64_t left_;
};

struct FileName {
  std::string path;  // relative to the store's folder, and inside it
  std::string base;  // what the names in a node of this file are relative to
};

struct Part {
  std::size_t file = 0;  // in the list of files
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
};

struct Manifest {
  std::uint64_t max_decoded_node_bytes = 0;
  std::vector<FileName> files;
  int root_height = 0;
  Part root;  // of the newest version
};

struct Node {
  struct Entry {
    std::string key;     // without the prefix that all keys of this node share
    bool is_inline;      // a value that lies in this node
    std::string value;   // if inline
    Part part;           // else: a value in a file, or the child
    std::size_t shared;  // interior: how many bytes of `key` all keys below begin with
  };
  std::vector<FileName> files;
  std::vector<Entry> entries;
};

// Both throw CheckpointError for bodies that contradict themselves and for what is not supported.
Manifest parse_manifest(std::span<const std::byte> body, Budget& budget, const std::string& source);
// `base`: of the file that the node lies in.
Node parse_node(std::span<const std::byte> body, int height, const std::string& base, Budget& budget,
                const std::string& source);

}  // namespace pi0::orbax
