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

TEST_CASE("element count", "[value]") {
  CHECK(NdArray{{}, {}, {}}.element_count() == 1);
  CHECK(NdArray{{}, {2, 3}, {}}.element_count() == 6);
  CHECK(NdArray{{}, {2, 0}, {}}.element_count() == 0);
}
