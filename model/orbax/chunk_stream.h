// The bytes of one chunk, decoded in order and piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "model/orbax/key_values.h"
#include "model/orbax/zarr.h"
#include "model/orbax/zstd_decoder.h"

namespace pi0::orbax {

class ChunkStream {
 public:
  // `size`: bytes of the decoded chunk.
  ChunkStream(Value encoded, Codecs codecs, std::uint64_t size);

  // The next bytes; together no more than `size`. With the last one, the checksum and that nothing follows are checked.
  // Throws CheckpointError.
  void read(std::span<std::byte> target);
  void skip(std::uint64_t count);

 private:
  void decode(std::span<std::byte> target);
  std::size_t decode_some(std::span<std::byte> target);  // how many bytes
  void read_encoded(std::span<std::byte> target);
  bool is_used_up() const { return left_.empty() && position_ == encoded_size_; }
  void check_end();

  Value encoded_;
  Codecs codecs_;
  std::uint64_t size_;
  std::uint64_t encoded_size_;  // without the checksum
  std::uint64_t decoded_ = 0;
  std::optional<ZstdDecoder> zstd_;
  std::uint32_t crc_ = 0;       // of what was read of the encoded bytes
  std::uint64_t position_ = 0;  // in the encoded bytes
  std::vector<std::byte> input_;
  std::span<const std::byte> left_;   // of input_, not decoded yet
  std::vector<std::byte> output_;     // for reads of a few bytes
  std::span<const std::byte> ahead_;  // of output_, not read yet
};

}  // namespace pi0::orbax
