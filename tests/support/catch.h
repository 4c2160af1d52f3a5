// Catch2 2 (Debian 12) and 3 under one name.
#pragma once
#include <string>
#if PI0_CATCH2_MAJOR >= 3
#include <catch2/catch_all.hpp>  // IWYU pragma: export

namespace pi0 {
inline auto contains_text(const std::string& text) { return Catch::Matchers::ContainsSubstring(text); }
}  // namespace pi0
#else
#include <catch2/catch.hpp>  // IWYU pragma: export

namespace pi0 {
inline auto contains_text(const std::string& text) { return Catch::Matchers::Contains(text); }
}  // namespace pi0
#endif
