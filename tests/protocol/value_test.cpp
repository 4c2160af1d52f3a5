#include "protocol/value.h"

#include "support/catch.h"

using namespace pi0::protocol;

TEST_CASE("a dict keeps the order in which keys came, and the last value", "[value]") {
  Dict dict;
  dict.set("b", 1);
  dict.set("a", 2);
  dict.set("b", "three");
  REQUIRE(dict.entries().size() == 2);
  CHECK(dict.entries()[0].first == "b");
  CHECK(std::get<std::string>(*dict.find("b")) == "three");
  CHECK(dict.find("c") == nullptr);
  dict.erase("b");
  dict.erase("c");
  REQUIRE(dict.entries().size() == 1);
  CHECK(dict.entries()[0].first == "a");
}

TEST_CASE("type names", "[value]") {
  CHECK(type_name({}) == "nil");
  CHECK(type_name(1) == "int");
  CHECK(type_name(1.5) == "float");
  CHECK(type_name("x") == "str");
  CHECK(type_name(NdArray{{'f', 4}, {7}, {}}) == "float32 array [7]");
  CHECK(type_name(NdArray{{'u', 1}, {2, 3}, {}}) == "uint8 array [2, 3]");
  CHECK(type_name(NdArray{{'b', 1}, {}, {}}) == "bool array []");
  CHECK(type_name(NdArray{{'U', 12}, {1}, {}}) == "U3 array [1]");
  CHECK(type_name(NdArray{{'S', 3}, {1}, {}}) == "S3 array [1]");
}

TEST_CASE("lists of equal arrays are stacked", "[value]") {
  const NdArray a{{'i', 2}, {2}, {1, 2, 3, 4}}, b{{'i', 2}, {2}, {5, 6, 7, 8}};
  const std::optional<NdArray> both = stacked({{a, b}});
  REQUIRE(both.has_value());
  CHECK(both->dtype == a.dtype);
  CHECK(both->shape == std::vector<std::int64_t>{2, 2});
  CHECK(both->data == std::vector<std::uint8_t>{1, 2, 3, 4, 5, 6, 7, 8});
  CHECK_FALSE(stacked({}).has_value());
  CHECK_FALSE(stacked({{a, 1}}).has_value());
  CHECK_FALSE(stacked({{a, NdArray{{'i', 2}, {1, 2}, {1, 2, 3, 4}}}}).has_value());
  CHECK_FALSE(stacked({{a, NdArray{{'u', 2}, {2}, {1, 2, 3, 4}}}}).has_value());
}

TEST_CASE("element count", "[value]") {
  CHECK(NdArray{{}, {}, {}}.element_count() == 1);
  CHECK(NdArray{{}, {2, 3}, {}}.element_count() == 6);
  CHECK(NdArray{{}, {2, 0}, {}}.element_count() == 0);
}
