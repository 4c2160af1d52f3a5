#include "model/orbax/zstd_decoder.h"

#include <zstd.h>

#include <algorithm>
#include <new>

#include "model/checkpoint_error.h"

namespace pi0::orbax {

using model::CheckpointError;

void ZstdDecoder::Free::operator()(ZSTD_DCtx_s* context) const { ZSTD_freeDCtx(context); }

ZstdDecoder::ZstdDecoder() : context_(ZSTD_createDCtx()) {
  if (context_ == nullptr) throw std::bad_alloc();
}

ZstdDecoder::Progress ZstdDecoder::decode(std::span<const std::byte> input, std::span<std::byte> output,
                                          const std::string& source) {
  ZSTD_inBuffer in{input.data(), input.size(), 0};
  ZSTD_outBuffer out{output.data(), output.size(), 0};
  while (in.pos < in.size || out.pos < out.size) {
    const std::size_t in_before = in.pos, out_before = out.pos;
    const std::size_t result = ZSTD_decompressStream(context_.get(), &out, &in);
    if (ZSTD_isError(result) != 0) {
      throw CheckpointError(source + ": cannot be decoded as zstd: " + ZSTD_getErrorName(result));
    }
    if (in.pos == in_before && out.pos == out_before) break;  // it needs more room or more input
    at_frame_end_ = result == 0;
  }
  return {in.pos, out.pos};
}

std::vector<std::byte> decoded_zstd(std::span<const std::byte> input, std::uint64_t limit, const std::string& source) {
  ZstdDecoder decoder;
  std::vector<std::byte> result;
  std::vector<std::byte> piece(std::min<std::uint64_t>(limit, std::uint64_t{1} << 16) + 1);
  while (true) {
    const ZstdDecoder::Progress progress = decoder.decode(input, piece, source);
    input = input.subspan(progress.taken);
    result.insert(result.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(progress.made));
    if (result.size() > limit) {
      throw CheckpointError(source + ": decodes to more than the " + std::to_string(limit) + " bytes allowed");
    }
    if (progress.made < piece.size()) break;
  }
  if (!decoder.at_frame_end()) throw CheckpointError(source + ": its zstd frame is cut off");
  return result;
}

}  // namespace pi0::orbax
