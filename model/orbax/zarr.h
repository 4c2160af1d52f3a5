// How zarr, version 2 or 3, lays an array out in values: read from its metadata. Knows bytes' order; reads no elements.
// Reference: zarr's specifications 2 and 3, and what TensorStore writes for orbax. Whatever else they allow is refused
// by name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace pi0::orbax {

enum class DType { float32, bfloat16, float16 };
std::uint64_t bytes_of(DType dtype);
const char* name_of(DType dtype);         // float32
const char* zarray_name_of(DType dtype);  // in version 2: <f4

struct ArrayInfo {
  DType dtype = DType::float32;
  std::vector<std::int64_t> shape;
  std::uint64_t bytes = 0;  // of all elements
};
std::string shown(const std::vector<std::int64_t>& shape);  // [2, 3]

// How the bytes of a chunk were encoded, first zstd, then the checksum.
struct Codecs {
  bool zstd = false;
  bool crc32c = false;
};

struct ZarrLayout {
  ArrayInfo info;
  std::vector<std::int64_t> chunk;                 // shape of what is encoded as one; no larger than the array
  std::optional<std::vector<std::int64_t>> shard;  // shape of what lies in one value, in chunks; none: a chunk
  Codecs codecs;                                   // of a chunk
  Codecs index_codecs;                             // of a shard's index
  bool index_at_end = true;
  bool absent_is_zero = false;  // a chunk that is not there is all zeros

  // The value of the chunk, or shard, with these indices along the axes.
  std::string key(const std::vector<std::int64_t>& indices) const;
  std::string key_prefix;  // what stands before the indices: "" or "c"
  char separator = '.';
};

// `source` begins the messages. Throws CheckpointError.
ZarrLayout parse_zarray(const std::string& json, const std::string& source);     // version 2
ZarrLayout parse_zarr_json(const std::string& json, const std::string& source);  // version 3

}  // namespace pi0::orbax
