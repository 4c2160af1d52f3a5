#include "model/orbax/chunk_stream.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "model/checkpoint_error.h"
#include "model/orbax/byte_reader.h"
#include "model/orbax/crc32c.h"

namespace pi0::orbax {
namespace {

using model::CheckpointError;

constexpr std::uint64_t checksum_bytes = 4;
constexpr std::uint64_t input_bytes = std::uint64_t{256} << 10;
constexpr std::uint64_t output_bytes = std::uint64_t{64} << 10;

}  // namespace

ChunkStream::ChunkStream(Value encoded, Codecs codecs, std::uint64_t size)
    : encoded_(std::move(encoded)), codecs_(codecs), size_(size), encoded_size_(encoded_.size()) {
  if (codecs_.crc32c) {
    if (encoded_size_ < checksum_bytes) {
      throw CheckpointError(encoded_.where() + ": has " + std::to_string(encoded_size_) +
                            " bytes, too few for its checksum");
    }
    encoded_size_ -= checksum_bytes;
  }
  if (codecs_.zstd) {
    zstd_.emplace();
    input_.resize(std::min(input_bytes, encoded_size_));
  } else if (encoded_size_ != size_) {
    throw CheckpointError(encoded_.where() + ": has " + std::to_string(encoded_size_) + " bytes, expected " +
                          std::to_string(size_));
  }
}

void ChunkStream::read(std::span<std::byte> target) {
  while (!target.empty()) {
    if (ahead_.empty()) {
      if (target.size() >= output_bytes) return decode(target);
      output_.resize(std::min(output_bytes, size_ - decoded_));
      decode(output_);
      ahead_ = output_;
    }
    const std::size_t count = std::min(target.size(), ahead_.size());
    std::memcpy(target.data(), ahead_.data(), count);
    target = target.subspan(count);
    ahead_ = ahead_.subspan(count);
  }
}

void ChunkStream::skip(std::uint64_t count) {
  std::array<std::byte, output_bytes> dropped;
  while (count > 0) {
    const std::uint64_t size = std::min(count, output_bytes);
    read(std::span(dropped).first(size));
    count -= size;
  }
}

void ChunkStream::read_encoded(std::span<std::byte> target) {
  encoded_.read(position_, target);
  position_ += target.size();
  if (codecs_.crc32c) crc_ = crc32c(target, crc_);
}

std::size_t ChunkStream::decode_some(std::span<std::byte> target) {
  if (left_.empty() && position_ < encoded_size_) {
    const std::span<std::byte> piece = std::span(input_).first(std::min(input_bytes, encoded_size_ - position_));
    read_encoded(piece);
    left_ = piece;
  }
  const ZstdDecoder::Progress progress = zstd_->decode(left_, target, encoded_.where());
  left_ = left_.subspan(progress.taken);
  return progress.made;
}

void ChunkStream::decode(std::span<std::byte> target) {
  decoded_ += target.size();
  if (!codecs_.zstd) read_encoded(target);
  while (codecs_.zstd && !target.empty()) {
    const std::size_t made = decode_some(target);
    target = target.subspan(made);
    if (made == 0 && is_used_up()) {
      throw CheckpointError(encoded_.where() + ": decodes to " + std::to_string(decoded_ - target.size()) +
                            (zstd_->at_frame_end() ? "" : " bytes and is cut off there") + ", expected " +
                            std::to_string(size_) + " bytes");
    }
  }
  if (decoded_ == size_) check_end();
}

void ChunkStream::check_end() {
  std::byte surplus{};
  while (codecs_.zstd) {
    if (decode_some({&surplus, 1}) > 0) {
      throw CheckpointError(encoded_.where() + ": decodes to more than the " + std::to_string(size_) +
                            " bytes expected");
    }
    if (is_used_up()) break;
  }
  if (codecs_.zstd && !zstd_->at_frame_end()) throw CheckpointError(encoded_.where() + ": its zstd frame is cut off");
  if (!codecs_.crc32c) return;
  std::array<std::byte, checksum_bytes> stored{};
  encoded_.read(encoded_size_, stored);
  if (ByteReader(stored, encoded_.where()).u32() != crc_) {
    throw CheckpointError(encoded_.where() + ": does not have the CRC-32C that it ends with");
  }
}

}  // namespace pi0::orbax
