// One zstd stream, decoded piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

struct ZSTD_DCtx_s;

namespace pi0::orbax {

class ZstdDecoder {
 public:
  ZstdDecoder();

  struct Progress {
    std::size_t taken = 0;  // of the input
    std::size_t made = 0;   // of the output
  };
  // Decodes until the output is full or the input is used up. Throws CheckpointError that begins with `source`.
  Progress decode(std::span<const std::byte> input, std::span<std::byte> output, const std::string& source);

  // Whether all that was decoded is whole frames.
  bool at_frame_end() const { return at_frame_end_; }

 private:
  struct Free {
    void operator()(ZSTD_DCtx_s* context) const;
  };
  std::unique_ptr<ZSTD_DCtx_s, Free> context_;
  bool at_frame_end_ = true;
};

// All of a small stream. Throws CheckpointError that begins with `source` when it is not whole or decodes to more than
// `limit` bytes.
std::vector<std::byte> decoded_zstd(std::span<const std::byte> input, std::uint64_t limit, const std::string& source);

}  // namespace pi0::orbax
