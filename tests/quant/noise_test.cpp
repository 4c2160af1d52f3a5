// Names of noise, and where its signs come from.
#include "quant/formats/noise.h"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.h"

namespace pi0 {
namespace {

using formats::add_noise;
using formats::name_of;
using formats::parse_noise;

std::string refusal_of_noise(const std::string& name) {
  try {
    parse_noise(name);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("noise has a name, and a wrong one is refused by its part", "[formats][noise]") {
  for (const std::string name : {"relative:0.01", "relative:0", "ulp:1,bfloat16", "ulp:0.5,float8_e4m3",
                                 "relative:1e-06,seed:7", "ulp:2,float16,seed:18446744073709551615"}) {
    CHECK(name_of(parse_noise(name)) == name);
  }
  CHECK(file_name_of(parse_noise("ulp:2,float16,seed:3")) == "ulp-2-float16-seed-3");
  const auto refuses = [](const std::string& name, const std::string& part) {
    INFO(name << ": " << refusal_of_noise(name));
    CHECK(refusal_of_noise(name).find(part) != std::string::npos);
  };
  refuses("", "expected relative:R or ulp:N,FORMAT");
  refuses("gauss:1", "expected relative:R or ulp:N,FORMAT");
  refuses("relative:", "found '', expected a number from 0 to 1");
  refuses("relative:2", "found '2', expected a number from 0 to 1");
  refuses("relative:nan", "found 'nan'");
  refuses("relative:0.1,bfloat16", "found '0.1,bfloat16'");
  refuses("ulp:1", "has no format");
  refuses("ulp:-1,bfloat16", "found '-1'");
  refuses("ulp:1,int8", "'int8' has no steps; known: float32, float16");
  refuses("ulp:1,mxfp4", "'mxfp4' has no steps");
  refuses("relative:0.1,seed:x", "found the seed 'x'");
  refuses("relative:0.1,seed:-1", "found the seed '-1'");
}

TEST_CASE("signs follow from seed, layer, place and value alone", "[formats][noise]") {
  const auto noise = parse_noise("relative:0.5");
  std::vector<float> values(1000, 1.0F), parts(1000, 1.0F);
  add_noise(noise, 1, 0, 1000, values.data());
  add_noise(noise, 1, 0, 300, parts.data());
  add_noise(noise, 1, 300, 700, parts.data() + 300);
  CHECK(values == parts);
  for (const float value : values) CHECK((value == 0.5F || value == 1.5F));
  std::vector<float> of_other_layer(1000, 1.0F), of_other_seed(1000, 1.0F);
  add_noise(noise, 2, 0, 1000, of_other_layer.data());
  add_noise(parse_noise("relative:0.5,seed:1"), 1, 0, 1000, of_other_seed.data());
  CHECK(of_other_layer != values);
  CHECK(of_other_seed != values);
}

TEST_CASE("steps are those of the format's grid, and what is not finite stays", "[formats][noise]") {
  const auto step_at = [](const char* name, float value) {
    float moved = value;
    add_noise(parse_noise(name), 1, 0, 1, &moved);
    return std::fabs(static_cast<double>(moved) - value);
  };
  CHECK(step_at("ulp:1,bfloat16", 1.0F) == std::ldexp(1, -7));
  CHECK(step_at("ulp:1,bfloat16", 1.99F) == Approx(std::ldexp(1, -7)).epsilon(1e-4));
  CHECK(step_at("ulp:2,float8_e4m3", 3.0F) == std::ldexp(2, 1 - 3));
  CHECK(step_at("ulp:1,float8_e4m3", 0.0F) == std::ldexp(1, -9));  // of subnormals
  CHECK(step_at("ulp:1,float8_e4m3", 0.001F) == Approx(std::ldexp(1, -9)).epsilon(1e-4));
  for (float value : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    const float before = value;
    add_noise(parse_noise("relative:0.5"), 1, 0, 1, &value);
    CHECK(value == before);
  }
}

}  // namespace
}  // namespace pi0
