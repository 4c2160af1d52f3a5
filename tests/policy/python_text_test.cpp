#include "model/policy/python_text.h"

#include "support/catch.h"

namespace pi0::policy {

TEST_CASE("python_strip drops Unicode white space at both ends only", "[policy][text]") {
  REQUIRE(python_strip(" \t\n\v\f\r\x1c\x1d\x1e\x1f a b \x1f") == "a b");
  REQUIRE(python_strip("\u3000\u00a0\u0085\u1680\u2000\u200a\u2028\u2029\u202f\u205fa\u3000") == "a");
  REQUIRE(python_strip("\u200b a") == "\u200b a");  // a zero width space is no white space
  REQUIRE(python_strip("\ufeff") == "\ufeff");
  REQUIRE(python_strip("日本 ") == "日本");
  REQUIRE(python_strip(" \u3000 ").empty());
  REQUIRE(python_strip("").empty());
}

TEST_CASE("text_of_utf32 reads NumPy's U elements", "[policy][text]") {
  const auto text = [](std::u32string_view characters) {
    return text_of_utf32(
        {reinterpret_cast<const std::uint8_t*>(characters.data()), characters.size() * sizeof(char32_t)});
  };
  REQUIRE(text(U"a\u00e9\u65e5\U0001f916") == "a\u00e9\u65e5\U0001f916");
  REQUIRE(text(std::u32string_view(U"ab\0\0", 4)) == "ab");
  REQUIRE(text(std::u32string_view(U"a\0b", 3)) == std::string("a\0b", 3));
  REQUIRE(text(U"") == "");
  REQUIRE_FALSE(text(std::u32string(1, char32_t{0xd800})).has_value());
  REQUIRE_FALSE(text(std::u32string(1, char32_t{0x110000})).has_value());
}

}  // namespace pi0::policy
