#include "model/checksum.h"

#include <ATen/Parallel.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <vector>

namespace pi0::model {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::int64_t part_bytes = std::int64_t{4} << 20;

// Every step is reversible, so that a change of one word stays in the lane.
std::uint64_t mixed(std::uint64_t lane, std::uint64_t word) {
  return std::rotl((lane ^ word) * 0x9E3779B97F4A7C15ULL, 29);
}

std::uint64_t checksum_of_part(Bytes bytes) {
  std::array<std::uint64_t, 8> lanes = {1, 2, 3, 4, 5, 6, 7, 8};  // that a CPU mixes side by side
  constexpr std::size_t block = sizeof lanes;
  for (std::size_t at = 0; at < bytes.size(); at += block) {
    std::array<std::uint64_t, 8> words{};
    std::memcpy(words.data(), bytes.data() + at, std::min(block, bytes.size() - at));
    for (std::size_t i = 0; i < lanes.size(); ++i) lanes[i] = mixed(lanes[i], words[i]);
  }
  std::uint64_t sum = bytes.size();
  for (const std::uint64_t lane : lanes) sum = mixed(sum, lane);
  return sum;
}

// One call costs less than a fault for every few pages. Memory that is no map of a file, and older systems, refuse.
void read_pages_ahead(Bytes bytes) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t into_page = reinterpret_cast<std::uintptr_t>(bytes.data()) % page;
  ::madvise(const_cast<std::byte*>(bytes.data()) - into_page, bytes.size() + into_page, MADV_POPULATE_READ);
}

}  // namespace

std::uint64_t checksum(Bytes bytes) {
  const auto size = static_cast<std::int64_t>(bytes.size()), parts = (size + part_bytes - 1) / part_bytes;
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(parts));
  at::parallel_for(0, parts, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t part = begin; part < end; ++part) {
      const std::int64_t first = part * part_bytes, length = std::min(part_bytes, size - first);
      const Bytes own = bytes.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(length));
      read_pages_ahead(own);
      sums[static_cast<std::size_t>(part)] = checksum_of_part(own);
    }
  });
  std::uint64_t sum = bytes.size();
  for (const std::uint64_t each : sums) sum = mixed(sum, each);
  return sum;
}

}  // namespace pi0::model
