#include "model/orbax/ocdbt_writer.h"

#include <span>

#include "model/orbax/crc32c.h"

namespace pi0::orbax {
namespace {

void add_fixed(std::string& text, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 255);
}

void add_varint(std::string& text, std::uint64_t value) {
  for (; value > 127; value >>= 7) text += static_cast<char>((value & 127) | 128);
  text += static_cast<char>(value);
}

// A table of one file, whose path is relative to the store's folder.
void add_file_table(std::string& text, const std::string& file) {
  add_varint(text, 1);
  add_varint(text, file.size());
  add_varint(text, 0);  // the bytes of its base
  text += file;
}

}  // namespace

std::string block(BlockKind kind, std::string_view body) {
  constexpr std::size_t around = 4 + 8 + 1 + 1 + 4;
  std::string text;
  add_fixed(text, __builtin_bswap32(static_cast<std::uint32_t>(kind)), 4);
  add_fixed(text, body.size() + around, 8);
  add_varint(text, 0);  // version
  add_varint(text, 0);  // not compressed
  text += body;
  add_fixed(text, crc32c(std::as_bytes(std::span(text))), 4);
  return text;
}

std::string leaf_body(const std::vector<Node::Entry>& entries, const std::string& file) {
  std::string text(1, '\0');  // height
  add_file_table(text, file);
  add_varint(text, entries.size());
  for (std::size_t i = 1; i < entries.size(); ++i) add_varint(text, 0);  // bytes shared with the key before
  for (const Node::Entry& entry : entries) add_varint(text, entry.key.size());
  for (const Node::Entry& entry : entries) text += entry.key;
  for (const Node::Entry& entry : entries) add_varint(text, entry.is_inline ? entry.value.size() : entry.part.size);
  for (const Node::Entry& entry : entries) add_varint(text, entry.is_inline ? 0 : 1);
  for (const Node::Entry& entry : entries) {
    if (!entry.is_inline) add_varint(text, 0);  // the file
  }
  for (const Node::Entry& entry : entries) {
    if (!entry.is_inline) add_varint(text, entry.part.offset);
  }
  for (const Node::Entry& entry : entries) text += entry.value;
  return text;
}

std::string manifest_body(std::string_view id, const std::string& file, const Part& leaf,
                          const std::vector<Node::Entry>& entries, std::uint64_t nanoseconds_since_1970) {
  constexpr std::uint64_t max_inline_value_bytes = 1024, max_decoded_node_bytes = 8 << 20;  // TensorStore's
  std::uint64_t bytes_in_files = 0;
  for (const Node::Entry& entry : entries) bytes_in_files += entry.is_inline ? 0 : entry.part.size;
  std::string text(id);
  add_varint(text, 0);  // the only manifest
  add_varint(text, max_inline_value_bytes);
  add_varint(text, max_decoded_node_bytes);
  add_fixed(text, 4, 1);  // log2 of the arity of the tree of older versions
  add_varint(text, 0);    // not compressed
  add_file_table(text, file);
  add_varint(text, 1);    // versions
  add_varint(text, 1);    // its number
  add_fixed(text, 0, 1);  // its height
  add_varint(text, 0);    // its file
  add_varint(text, leaf.offset);
  add_varint(text, leaf.size);
  add_varint(text, entries.size());
  add_varint(text, leaf.size);  // bytes of all nodes
  add_varint(text, bytes_in_files);
  add_fixed(text, nanoseconds_since_1970, 8);
  add_varint(text, 0);  // older versions
  return text;
}

}  // namespace pi0::orbax
