#include "model/orbax/ocdbt.h"

#include <algorithm>

#include "model/checkpoint_error.h"

namespace pi0::orbax {
namespace {

using model::CheckpointError;

constexpr std::uint64_t most_bytes = std::uint64_t{256} << 20;    // of all nodes and keys
constexpr std::uint64_t node_cost = 4096;                         // of reading one, beside its bytes
constexpr std::uint64_t largest_block = std::uint64_t{64} << 20;  // as stored and decoded

std::vector<std::byte> read_part(const File& file, std::uint64_t offset, std::uint64_t size,
                                 const std::string& source) {
  if (size > largest_block) {
    throw CheckpointError(source + ": has " + std::to_string(size) + " bytes, expected at most " +
                          std::to_string(largest_block));
  }
  std::vector<std::byte> bytes(size);
  file.read(offset, bytes);
  return bytes;
}

}  // namespace

Ocdbt::Ocdbt(std::filesystem::path folder) : folder_(std::move(folder)) {
  const std::string source = (folder_ / manifest_name).string();
  Budget budget(most_bytes);
  const File file(folder_ / manifest_name);
  const Manifest manifest = parse_manifest(
      block_body(read_part(file, 0, file.size(), source), BlockKind::manifest, largest_block, source), budget, source);
  // TensorStore splits nodes by an estimate of their size.
  node_limit_ = std::min(largest_block, std::min(manifest.max_decoded_node_bytes, largest_block) * 2 + (1 << 16));
  read_node(manifest.files[manifest.root.file], manifest.root, manifest.root_height, "", budget);
}

std::shared_ptr<const File> Ocdbt::open(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  std::weak_ptr<const File>& known = files_[path];
  std::shared_ptr<const File> file = known.lock();
  if (file == nullptr) known = file = std::make_shared<const File>(folder_ / path);
  return file;
}

void Ocdbt::read_node(const FileName& file_name, const Part& part, int height, const std::string& prefix,
                      Budget& budget) {
  const std::string source = (folder_ / file_name.path).string() + ": node at byte " + std::to_string(part.offset);
  const std::shared_ptr<const File> file = open(file_name.path);
  const Value place("node", file, part.offset, part.size);  // within the file
  budget.spend(node_cost + part.size, source);
  const std::vector<std::byte> body =
      block_body(read_part(*file, part.offset, part.size, source), BlockKind::node, node_limit_, source);
  budget.spend(body.size(), source);
  Node node = parse_node(body, height, file_name.base, budget, source);
  for (Node::Entry& entry : node.entries) {
    if (height > 0) {
      std::string below = prefix;
      below.append(entry.key, 0, entry.shared);
      budget.spend(below.size(), source);
      read_node(node.files[entry.part.file], entry.part, height - 1, below, budget);
      continue;
    }
    std::string key = prefix;
    key += entry.key;
    budget.spend(2 * key.size(), source);
    if (!values_.empty() && key <= last_key_) {
      throw CheckpointError(source + ": key '" + key + "' comes after '" + last_key_ + "', expected sorted keys");
    }
    last_key_ = key;
    if (entry.is_inline) {
      values_.emplace(std::move(key), Place{true, std::move(entry.value), {}, 0, 0});
    } else {
      const std::string& path = node.files[entry.part.file].path;
      budget.spend(path.size(), source);
      const Value checked(key, open(path), entry.part.offset, entry.part.size);
      values_.emplace(std::move(key), Place{false, {}, path, entry.part.offset, entry.part.size});
    }
  }
}

std::vector<std::string> Ocdbt::array_keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, place] : values_) {
    if (is_array_key(key)) keys.push_back(key);
  }
  return keys;
}

std::optional<Value> Ocdbt::find(const std::string& key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) return std::nullopt;
  const Place& place = found->second;
  if (place.is_inline) return Value((folder_ / manifest_name).string() + ": '" + key + "'", place.bytes);
  return Value(key, open(place.file), place.offset, place.size);
}

}  // namespace pi0::orbax
