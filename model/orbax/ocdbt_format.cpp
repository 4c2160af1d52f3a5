#include "model/orbax/ocdbt_format.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>

#include "model/checkpoint_error.h"
#include "model/orbax/byte_reader.h"
#include "model/orbax/crc32c.h"
#include "model/orbax/zstd_decoder.h"

namespace pi0::orbax {
namespace {

using model::CheckpointError;

constexpr std::size_t longest_name = 4096;  // of a file or a key
constexpr std::uint64_t entry_bytes = 128;  // of an entry beside its key, about

std::string hex(std::uint32_t value) {
  std::array<char, 11> text{};
  std::snprintf(text.data(), text.size(), "0x%08x", value);
  return text.data();
}

// `count` names that lie one after another: each takes `prefixes` bytes of the one before and `suffixes` of its own.
std::vector<std::string> names(ByteReader& in, std::size_t count, Budget& budget, const std::string& source,
                               const std::vector<std::uint64_t>& prefixes, const std::vector<std::uint64_t>& suffixes) {
  std::vector<std::string> result;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t prefix = i == 0 ? 0 : prefixes[i - 1];
    if (i > 0 && prefix > result.back().size()) {
      in.refuse("a name takes " + std::to_string(prefix) + " bytes of the one before, which has " +
                std::to_string(result.back().size()));
    }
    if (suffixes[i] > longest_name - std::min<std::uint64_t>(prefix, longest_name)) {
      in.refuse("a name has more than " + std::to_string(longest_name) + " bytes");
    }
    budget.spend(entry_bytes + prefix + suffixes[i], source);
    const std::string_view suffix = in.text(suffixes[i]);
    if (!is_printable(suffix)) in.refuse("a name has characters that are not printable ASCII");
    result.push_back((i == 0 ? "" : result.back().substr(0, prefix)) + std::string(suffix));
  }
  return result;
}

bool is_inside(const std::string& path) {
  if (path.empty() || path.front() == '/') return false;
  return std::ranges::none_of(std::filesystem::path(path), [](const auto& part) { return part == ".."; });
}

std::vector<FileName> file_table(ByteReader& in, const std::string& base, Budget& budget, const std::string& source) {
  const std::size_t count = in.count("files");
  const std::vector<std::uint64_t> prefixes = in.varints(count > 0 ? count - 1 : 0);
  const std::vector<std::uint64_t> suffixes = in.varints(count);
  const std::vector<std::uint64_t> bases = in.varints(count);
  std::vector<FileName> files;
  for (const std::string& name : names(in, count, budget, source, prefixes, suffixes)) {
    const std::uint64_t base_size = bases[files.size()];
    if (base_size > name.size()) {
      in.refuse("the base of file '" + name + "' has " + std::to_string(base_size) + " bytes, more than its name");
    }
    FileName file{base + name, base + name.substr(0, base_size)};
    budget.spend(file.path.size() + file.base.size(), source);
    if (file.path.size() > longest_name || !is_inside(file.path)) {
      in.refuse("names the file '" + file.path.substr(0, 200) + "', expected one inside the folder");
    }
    files.push_back(std::move(file));
  }
  return files;
}

std::vector<Part> parts(ByteReader& in, std::size_t count, const std::vector<FileName>& files) {
  const std::vector<std::uint64_t> file = in.varints(count), offset = in.varints(count), size = in.varints(count);
  std::vector<Part> result;
  for (std::size_t i = 0; i < count; ++i) {
    if (file[i] >= files.size()) {
      in.refuse("refers to file " + std::to_string(file[i]) + " of " + std::to_string(files.size()));
    }
    result.push_back({file[i], offset[i], size[i]});
  }
  return result;
}

}  // namespace

void Budget::spend(std::uint64_t bytes, const std::string& source) {
  if (bytes > left_) {
    throw CheckpointError(source + ": the keys and nodes take more than the " + std::to_string(bytes_) +
                          " bytes allowed");
  }
  left_ -= bytes;
}

std::vector<std::byte> block_body(std::span<const std::byte> block, BlockKind kind, std::uint64_t limit,
                                  const std::string& source) {
  constexpr std::size_t checksum_bytes = 4;
  ByteReader in(block, source);
  const std::uint32_t magic = in.u32_be();
  if (magic != static_cast<std::uint32_t>(kind)) {
    in.refuse("starts with " + hex(magic) + ", expected " + hex(static_cast<std::uint32_t>(kind)) + " of an OCDBT " +
              (kind == BlockKind::manifest ? "manifest" : "node"));
  }
  const std::uint64_t length = in.u64();
  if (length != block.size()) {
    in.refuse("says that it has " + std::to_string(length) + " bytes, found " + std::to_string(block.size()));
  }
  in.take(checksum_bytes);  // they are there
  const std::span<const std::byte> checked = block.first(block.size() - checksum_bytes);
  const std::uint32_t found = crc32c(checked);
  const std::uint32_t expected = ByteReader(block.last(checksum_bytes), source).u32();
  if (found != expected) in.refuse("its CRC-32C is " + hex(found) + ", expected " + hex(expected));
  ByteReader header(checked.subspan(12), source);
  const std::uint64_t version = header.varint(), compression = header.varint();
  if (version != 0) in.refuse("has version " + std::to_string(version) + ", expected 0");
  if (compression > 1) in.refuse("has compression " + std::to_string(compression) + ", expected 0 (none) or 1 (zstd)");
  const std::span<const std::byte> body = header.rest();
  if (compression == 1) return decoded_zstd(body, limit, source);
  if (body.size() > limit) in.refuse("has more than the " + std::to_string(limit) + " bytes allowed");
  return {body.begin(), body.end()};
}

Manifest parse_manifest(std::span<const std::byte> body, Budget& budget, const std::string& source) {
  ByteReader in(body, source);
  in.take(16);  // the store's random number
  const std::uint64_t kind = in.varint();
  if (kind != 0) {
    in.refuse("has manifest kind " + std::to_string(kind) + (kind == 1 ? " (numbered)" : "") + ", expected 0 (single)");
  }
  in.varint();  // the largest value that was put into a node
  Manifest manifest;
  manifest.max_decoded_node_bytes = in.varint();
  in.u8();  // arity of the tree of older versions
  const std::uint64_t compression = in.varint();
  if (compression > 1) in.refuse("has compression " + std::to_string(compression) + ", expected 0 (none) or 1 (zstd)");
  if (compression == 1) in.u32();  // its level
  manifest.files = file_table(in, "", budget, source);
  const std::size_t count = in.count("versions");
  if (count == 0) in.refuse("has no version");
  const std::vector<std::uint64_t> generations = in.varints(count);
  for (std::size_t i = 1; i < count; ++i) {
    if (generations[i] <= generations[i - 1]) {
      in.refuse("version " + std::to_string(generations[i]) + " comes after version " +
                std::to_string(generations[i - 1]));
    }
  }
  const std::span<const std::byte> heights = in.take(count);
  manifest.root_height = std::to_integer<int>(heights.back());
  manifest.root = parts(in, count, manifest.files).back();
  return manifest;  // statistics, times and the tree of older versions follow
}

Node parse_node(std::span<const std::byte> body, int height, const std::string& base, Budget& budget,
                const std::string& source) {
  ByteReader in(body, source);
  const int found_height = in.u8();
  if (found_height != height) {
    in.refuse("is a node of height " + std::to_string(found_height) + ", expected " + std::to_string(height));
  }
  Node node;
  node.files = file_table(in, base, budget, source);
  const std::size_t count = in.count("keys");
  const std::vector<std::uint64_t> prefixes = in.varints(count > 0 ? count - 1 : 0);
  const std::vector<std::uint64_t> suffixes = in.varints(count);
  const std::vector<std::uint64_t> shared = in.varints(height > 0 ? count : 0);
  for (std::string& key : names(in, count, budget, source, prefixes, suffixes)) {
    const std::size_t i = node.entries.size();
    if (height > 0 && shared[i] > key.size()) {
      in.refuse("the keys below '" + key + "' share " + std::to_string(shared[i]) + " bytes, more than it has");
    }
    node.entries.push_back({std::move(key), false, {}, {}, height > 0 ? shared[i] : 0});
  }
  if (height > 0) {
    if (count == 0) in.refuse("has no children");
    const std::vector<Part> children = parts(in, count, node.files);
    for (std::size_t i = 0; i < count; ++i) node.entries[i].part = children[i];
    in.varints(3 * count);  // statistics of each child: keys, bytes of nodes, bytes of values
  } else {
    const std::vector<std::uint64_t> sizes = in.varints(count), kinds = in.varints(count);
    std::vector<std::size_t> in_files;
    for (std::size_t i = 0; i < count; ++i) {
      if (kinds[i] > 1) in.refuse("has a value of kind " + std::to_string(kinds[i]) + ", expected 0 or 1");
      node.entries[i].is_inline = kinds[i] == 0;
      if (kinds[i] == 1) in_files.push_back(i);
    }
    const std::vector<std::uint64_t> file = in.varints(in_files.size()), offset = in.varints(in_files.size());
    for (std::size_t i = 0; i < in_files.size(); ++i) {
      if (file[i] >= node.files.size()) {
        in.refuse("refers to file " + std::to_string(file[i]) + " of " + std::to_string(node.files.size()));
      }
      node.entries[in_files[i]].part = {file[i], offset[i], sizes[in_files[i]]};
    }
    for (std::size_t i = 0; i < count; ++i) {
      if (!node.entries[i].is_inline) continue;
      budget.spend(sizes[i], source);
      node.entries[i].value = in.text(sizes[i]);
    }
  }
  if (!in.rest().empty()) in.refuse("has " + std::to_string(in.rest().size()) + " bytes after its end");
  return node;
}

}  // namespace pi0::orbax
