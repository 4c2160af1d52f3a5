// Names of number formats, and what follows from their parts.
#include <stdexcept>
#include <string>

#include "quant/formats/site_formats.h"
#include "support/catch.h"

namespace pi0 {
namespace {

using formats::Format;
using formats::Granularity;
using formats::name_of;
using formats::NumberFormat;
using formats::parse_number_format;
using formats::Rule;
using formats::ScaleKind;

std::string refusal_of(const std::string& name) {
  try {
    parse_number_format(name);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST_CASE("a canonical name makes the round trip", "[formats]") {
  for (const std::string name : {"float32",
                                 "float16",
                                 "bfloat16",
                                 "float8_e4m3",
                                 "float8_e5m2",
                                 "float6_e2m3",
                                 "float6_e3m2",
                                 "float4_e2m1",
                                 "float8_e4m3:tensor",
                                 "float8_e5m2:tensor:po2",
                                 "float8_e4m3:tensor:scaled",
                                 "float8_e4m3:tensor:static",
                                 "float8_e5m2:tensor:po2:static",
                                 "int8:tensor:static",
                                 "float8_e4m3:row",
                                 "float8_e4m3:group128",
                                 "float8_e5m2:tile128",
                                 "float6_e2m3:group16",
                                 "float4_e2m1:group64:floor",
                                 "int8:tensor",
                                 "int2:row",
                                 "int4:group128",
                                 "int4:group128:asymmetric",
                                 "int8:tile128",
                                 "int8:group64:floor",
                                 "mxfp8_e4m3",
                                 "mxfp8_e5m2:ceil",
                                 "mxfp6_e2m3:even",
                                 "mxfp6_e3m2:rceil",
                                 "mxfp4",
                                 "mxfp4:even",
                                 "mxint8",
                                 "nvfp4",
                                 "nvfp4:one_level"}) {
    CHECK(name_of(parse_number_format(name)) == name);
  }
  CHECK(file_name_of(parse_number_format("int4:group128:asymmetric")) == "int4-group128-asymmetric");
  CHECK(name_of(NumberFormat{}) == "float32");
}

TEST_CASE("a spelled-out preset has the preset's name, and absmax is left out", "[formats]") {
  CHECK(name_of(parse_number_format("float4_e2m1:group32:floor")) == "mxfp4");
  CHECK(name_of(parse_number_format("float4_e2m1:group32:even")) == "mxfp4:even");
  CHECK(name_of(parse_number_format("float4_e2m1:group16:two_level")) == "nvfp4");
  CHECK(name_of(parse_number_format("float4_e2m1:group16:one_level")) == "nvfp4:one_level");
  CHECK(name_of(parse_number_format("float8_e4m3:group32:floor")) == "mxfp8_e4m3");
  CHECK(name_of(parse_number_format("int8:group32:floor")) == "mxint8");
  CHECK(name_of(parse_number_format("mxfp4:floor")) == "mxfp4");
  CHECK(name_of(parse_number_format("nvfp4:two_level")) == "nvfp4");
  CHECK(name_of(parse_number_format("int8:row:absmax")) == "int8:row");
  CHECK(name_of(parse_number_format("float4_e2m1:group32")) == "float4_e2m1:group32");
}

TEST_CASE("parts of a name become the format's", "[formats]") {
  CHECK(parse_number_format("mxfp4:even") == NumberFormat{Format::float4_e2m1, Granularity::group, 32, Rule::even});
  CHECK(parse_number_format("int4:tile128") == NumberFormat{Format::int4, Granularity::tile, 128, Rule::absmax});
  CHECK(parse_number_format("bfloat16") == NumberFormat{Format::bfloat16});
}

TEST_CASE("a refusal says which part is wrong and what it may be", "[formats]") {
  CHECK(has(refusal_of("fp8"), "'fp8' is unknown; known: float32, "));
  CHECK(has(refusal_of("fp8"), "int8, mxfp8_e4m3, "));
  CHECK(has(refusal_of(""), "'' is unknown"));
  CHECK(has(refusal_of("int4"), "int4 needs values that share a scale: tensor, row, group16, "));
  CHECK(has(refusal_of("bfloat16:row"), "bfloat16 takes no scale"));
  CHECK(has(refusal_of("int4:group48"), "granularity 'group48' is unknown; known: tensor, "));
  CHECK(has(refusal_of("int4:"), "granularity '' is unknown"));
  CHECK(has(refusal_of("int4:row:"), "rule '' is unknown; int4:row takes: absmax, asymmetric"));
  CHECK(has(refusal_of("float8_e4m3:row:po2"), "rule 'po2' is of float8_e4m3:tensor and float8_e5m2:tensor"));
  CHECK(has(refusal_of("float8_e4m3:row:po2"), "float8_e4m3:row takes: absmax"));
  CHECK(has(refusal_of("float6_e2m3:tensor:scaled"), "float6_e2m3:tensor takes: absmax"));
  CHECK(has(refusal_of("float8_e4m3:row:asymmetric"), "rule 'asymmetric' is of integers"));
  CHECK(has(refusal_of("int4:group32:floor"), "of groups of floats of 8, 6 or 4 bits, and of int8"));
  CHECK(has(refusal_of("int8:row:floor"), "int8:row takes: absmax, asymmetric"));
  CHECK(has(refusal_of("float4_e2m1:group32:two_level"), "rule 'two_level' is of float4_e2m1:group16 (nvfp4)"));
  CHECK(has(refusal_of("float8_e4m3:group16:two_level"), "of float4_e2m1:group16 (nvfp4)"));
  CHECK(has(refusal_of("int8:tile128:asymmetric"), "int8:tile128 takes: absmax"));
  CHECK(has(refusal_of("mxfp4:absmax"), "mxfp4 takes: floor, ceil, even, rceil"));
  CHECK(has(refusal_of("mxint8:even"), "mxint8 takes: floor"));
  CHECK(has(refusal_of("nvfp4:floor"), "nvfp4 takes: two_level, one_level"));
  CHECK(has(refusal_of("nvfp4:group16:two_level"), "one part more at most"));
  CHECK(has(refusal_of("int4:row:asymmetric:x"), "more than three parts"));
  CHECK(has(refusal_of("int8:row:static"), "static scales are of ELEMENT:tensor"));
  CHECK(has(refusal_of("int8:tensor:asymmetric:static"), "asymmetric"));
  CHECK(has(refusal_of("bfloat16:static"), "static scales are of ELEMENT:tensor"));
  CHECK(has(refusal_of("static"), "'static' is unknown"));
}

TEST_CASE("static scales are of inputs that are not rotated", "[formats]") {
  const NumberFormat fixed = parse_number_format("int8:tensor:static"), plain = {Format::bfloat16};
  formats::SiteFormats formats(fixed, plain);
  CHECK_FALSE(formats.weight.is_static);
  CHECK_NOTHROW(check(formats));
  formats.methods.rotate = true;
  CHECK_THROWS_AS(check(formats), std::invalid_argument);
  CHECK_THROWS_AS(check(formats::SiteFormats(plain, fixed)), std::invalid_argument);
  formats = {plain, plain};
  formats.kv_cache = fixed;
  CHECK_THROWS_AS(check(formats), std::invalid_argument);
  formats = {plain, plain};
  formats.vector = fixed;
  CHECK_THROWS_AS(check(formats), std::invalid_argument);
  formats = {plain, plain};
  formats.weight = fixed;
  CHECK_THROWS_AS(check(formats), std::invalid_argument);
}

TEST_CASE("only the five casts are plain", "[formats]") {
  CHECK(plain_cast(parse_number_format("float8_e4m3")) == Format::float8_e4m3);
  CHECK(plain_cast(NumberFormat{}) == Format::float32);
  CHECK_FALSE(plain_cast(parse_number_format("float4_e2m1")));
  CHECK_FALSE(plain_cast(parse_number_format("float8_e4m3:row")));
}

TEST_CASE("an activation has groups for tiles", "[formats]") {
  CHECK(name_of(for_activations(parse_number_format("float8_e4m3:tile128"))) == "float8_e4m3:group128");
  CHECK(name_of(for_activations(parse_number_format("mxfp4"))) == "mxfp4");
}

TEST_CASE("bits and bytes count codes and scales", "[formats]") {
  const auto bits = [](const char* name) { return bits_per_value(parse_number_format(name)); };
  CHECK(bits("bfloat16") == 16);
  CHECK(bits("float6_e3m2") == 6);
  CHECK(bits("mxfp4") == 4.25);
  CHECK(bits("mxint8") == 8.25);
  CHECK(bits("nvfp4") == 4.5);
  CHECK(bits("int4:group128") == 4.125);
  CHECK(bits("int4:group128:asymmetric") == 4 + 20.0 / 128);
  CHECK(bits("float8_e4m3:group128") == 8.25);
  CHECK(bits("float8_e4m3:tile128") == 8 + 32.0 / 16384);
  CHECK(bits("float8_e4m3:row") == 8);
  CHECK(bits("int8:tensor") == 8);

  const auto bytes = [](const char* name) { return bytes_of(parse_number_format(name), 3, 130); };
  CHECK(bytes("float16") == 3 * 260);
  CHECK(bytes("float6_e3m2") == 3 * 98);
  CHECK(bytes("mxfp4") == 3 * (65 + 5));
  CHECK(bytes("nvfp4") == 3 * (65 + 9) + 4);
  CHECK(bytes("nvfp4:one_level") == 3 * (65 + 9));
  CHECK(bytes("int4:group128:asymmetric") == 3 * (65 + 2 * 2 + 1));
  CHECK(bytes("int4:row") == 3 * (65 + 2));
  CHECK(bytes("int3:tensor:asymmetric") == 3 * 49 + 4 + 1);
  CHECK(bytes("float8_e4m3:tile128") == 3 * 130 + 2 * 4);
  CHECK(bytes("float8_e4m3:row") == 3 * (130 + 4));
}

TEST_CASE("a format's kind of scale says where a matmul may multiply by it", "[formats]") {
  const auto kind = [](const char* name) { return scale_kind(parse_number_format(name)); };
  CHECK(kind("float4_e2m1") == ScaleKind::none);
  CHECK(kind("mxfp4:rceil") == ScaleKind::power_of_two);
  CHECK(kind("mxint8") == ScaleKind::power_of_two);
  CHECK(kind("float8_e4m3:tensor:po2") == ScaleKind::power_of_two);
  CHECK(kind("float8_e4m3:tensor") == ScaleKind::row);
  CHECK(kind("int8:row:asymmetric") == ScaleKind::row);
  CHECK(kind("int4:group128") == ScaleKind::group);
  CHECK(kind("float8_e4m3:tile128") == ScaleKind::group);
  CHECK(kind("nvfp4") == ScaleKind::float8_group);

  const auto fits = [](const char* name) { return fits_bfloat16(parse_number_format(name)); };
  for (const char* name : {"bfloat16", "float8_e5m2", "float6_e2m3", "mxfp8_e4m3", "mxint8", "nvfp4:one_level",
                           "float8_e5m2:tensor:po2"}) {
    CHECK(fits(name));
  }
  for (const char* name : {"float32", "float16", "int8:row", "nvfp4", "float8_e4m3:tensor", "int4:group32"}) {
    CHECK_FALSE(fits(name));
  }
}

}  // namespace
}  // namespace pi0
