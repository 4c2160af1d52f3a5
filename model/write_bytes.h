// How writers hand out what they write.
#pragma once

#include <cstddef>
#include <functional>

namespace pi0::model {

// Appends bytes to a file.
using WriteBytes = std::function<void(const void* data, std::size_t size)>;

}  // namespace pi0::model
