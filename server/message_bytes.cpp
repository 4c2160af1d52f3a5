#include "server/message_bytes.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace pi0::server {

MessageBytes::~MessageBytes() {
  if (data_ != nullptr) ::munmap(data_, capacity_);
}

void MessageBytes::append(std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) return;
  if (size_ + bytes.size() > capacity_) {
    constexpr std::size_t least = std::size_t{64} << 10;  // a multiple of any page
    const std::size_t wanted = std::max({least, 2 * capacity_, (size_ + bytes.size() + least - 1) / least * least});
    void* const place = data_ == nullptr
                            ? ::mmap(nullptr, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                            : ::mremap(data_, capacity_, wanted, MREMAP_MAYMOVE);  // moves pages, copies nothing
    if (place == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<std::uint8_t*>(place);
    capacity_ = wanted;
  }
  std::memcpy(data_ + size_, bytes.data(), bytes.size());
  size_ += bytes.size();
}

}  // namespace pi0::server
