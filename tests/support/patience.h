// How long tests wait for what comes: longer than a busy machine takes.
#pragma once

#include <chrono>

namespace pi0::test {

constexpr std::chrono::seconds patience{60};

}  // namespace pi0::test
