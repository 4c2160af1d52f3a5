// Whatever an OCDBT block holds, or zarr's metadata and a chunk: a CheckpointError, or keys and arrays that can be
// read.
#include <cstring>
#include <span>
#include <vector>

#include "model/checkpoint_error.h"
#include "model/orbax/array_reader.h"
#include "model/orbax/crc32c.h"
#include "model/orbax/ocdbt_format.h"

namespace {

using namespace pi0::orbax;

// Where every value is the same.
class OneValue : public KeyValueStore {
 public:
  explicit OneValue(std::string bytes) : bytes_(std::move(bytes)) {}
  std::vector<std::string> array_keys() const override { return {}; }
  std::optional<Value> find(const std::string& key) const override {
    if (key.ends_with("1")) return std::nullopt;
    return Value(key, bytes_);
  }

 private:
  std::string bytes_;
};

// `text`: JSON, perhaps a null, and what chunks and shards hold.
void read_array(const std::string& text) {
  constexpr std::uint64_t most_bytes = 1 << 16;
  const std::string json = text.substr(0, text.find('\0'));
  const OneValue store(json.size() == text.size() ? "" : text.substr(json.size() + 1));
  const ZarrLayout layout =
      json.find("\"zarr_format\":2") != json.npos ? parse_zarray(json, "array") : parse_zarr_json(json, "array");
  if (layout.info.bytes > most_bytes) return;
  ArrayReader reader(store, "array", layout);
  std::vector<std::byte> row(reader.row_bytes());
  for (std::int64_t i = 0; i < reader.rows(); ++i) reader.read(i, 1, row);
  reader.read(0, 1, row);
}

// With the length and checksum that the bytes should have, which no fuzzer would guess.
void read_block(std::string bytes) {
  constexpr std::size_t checksum_bytes = 4;
  constexpr std::uint64_t limit = 1 << 20;
  if (bytes.size() < 20) return;
  const std::uint64_t length = bytes.size();
  std::memcpy(bytes.data() + 4, &length, sizeof length);
  const auto block = std::as_writable_bytes(std::span(bytes));
  const std::uint32_t sum = crc32c(block.first(block.size() - checksum_bytes));
  std::memcpy(block.last(checksum_bytes).data(), &sum, sizeof sum);

  Budget budget(limit);
  const bool is_manifest = static_cast<unsigned char>(bytes[2]) == 0x3a;
  const std::vector<std::byte> body =
      block_body(block, is_manifest ? BlockKind::manifest : BlockKind::node, limit, "block");
  if (is_manifest) {
    const Manifest manifest = parse_manifest(body, budget, "manifest");
    if (manifest.root.file >= manifest.files.size()) std::abort();
  } else {
    const int height = body.empty() ? 0 : std::to_integer<int>(body[0]);
    const Node node = parse_node(body, height, "base/", budget, "node");
    for (const Node::Entry& entry : node.entries) {
      if (!entry.is_inline && entry.part.file >= node.files.size()) std::abort();
      if (entry.shared > entry.key.size()) std::abort();
    }
    for (const FileName& file : node.files) {
      if (!file.path.starts_with("base/") || file.path.find("/../") != std::string::npos) std::abort();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string input(reinterpret_cast<const char*>(bytes), size);
  try {
    if (input.starts_with("{")) {
      read_array(input);
    } else {
      read_block(input);
    }
  } catch (const pi0::model::CheckpointError&) {
  }
  return 0;
}
