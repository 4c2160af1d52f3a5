// Noise in place of a format, for asking how much error a layer stands: each value y becomes y + e or y - e. Its sign
// follows from the seed, the layer, the value's bits and its place in a sample alone, so that a repeated request meets
// the same noise, alone or in a batch. Names are the same on command lines, in files and reports:
//
//   relative:R     e is R |y|
//   ulp:N,FORMAT   e is N steps of a float format's grid at y
//
// each with `,seed:S` behind it for another seed than 0.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "quant/formats/format.h"

namespace pi0::formats {

struct Noise {
  enum class Kind { relative, ulp };
  Kind kind = Kind::relative;
  double amount = 0;                // R from 0 to 1, or N from 0 to 2^20
  Format steps = Format::bfloat16;  // of ulp
  std::uint64_t seed = 0;
  bool operator==(const Noise&) const = default;
};

// Throws std::invalid_argument that says what is wrong and what it may be.
Noise parse_noise(std::string_view name);

std::string name_of(const Noise& noise);
std::string file_name_of(const Noise& noise);  // '-' for ':' and ','

// Adds noise to a sample's values from `first` on. `layer` is any number of the layer's own, as hash_of() makes.
// Infinities and NaN stay.
void add_noise(const Noise& noise, std::uint64_t layer, std::int64_t first, std::int64_t count, float* values);

std::uint64_t hash_of(std::string_view layer);  // FNV-1a: the same on every machine

}  // namespace pi0::formats
