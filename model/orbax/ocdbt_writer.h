// OCDBT's blocks, made: one leaf with all keys, and a manifest that names it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/orbax/ocdbt_format.h"

namespace pi0::orbax {

// A block with magic, length and checksum around a body that is stored as it is.
std::string block(BlockKind kind, std::string_view body);

// The body of a node without children. `entries` are sorted by key; those in files are all in the one of that path.
std::string leaf_body(const std::vector<Node::Entry>& entries, const std::string& file);

// The body of a manifest of one version, whose root is `leaf`, a part of `file`. `id`: 16 bytes, new for each store.
std::string manifest_body(std::string_view id, const std::string& file, const Part& leaf,
                          const std::vector<Node::Entry>& entries, std::uint64_t nanoseconds_since_1970);

}  // namespace pi0::orbax
