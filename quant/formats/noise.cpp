#include "quant/formats/noise.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <stdexcept>
#include <vector>

namespace pi0::formats {
namespace {

constexpr std::string_view relative_part = "relative:", ulp_part = "ulp:", seed_part = ",seed:";
constexpr double most_ulps = 1 << 20;

std::vector<Format> float_formats() {
  std::vector<Format> floats;
  for (const Properties& row : format_table) {
    if (!is_integer(row.format)) floats.push_back(row.format);
  }
  return floats;
}

[[noreturn]] void refuse_noise(std::string_view name, const std::string& why) {
  throw std::invalid_argument("noise '" + std::string(name) + "': " + why);
}

double parse_amount(std::string_view name, std::string_view text, double most) {
  double amount = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), amount);
  if (error == std::errc() && end == text.data() + text.size() && amount >= 0 && amount <= most) return amount;
  refuse_noise(name, "found '" + std::string(text) + "', expected a number from 0 to " +
                         std::to_string(static_cast<std::int64_t>(most)));
}

// SplitMix64's finalizer: every bit of the result depends on all bits of the value.
std::uint64_t mixed(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31);
}

}  // namespace

Noise parse_noise(std::string_view name) {
  Noise noise;
  std::string_view unseeded = name;
  if (const std::size_t seed = name.find(seed_part); seed != std::string_view::npos) {
    const std::string_view text = name.substr(seed + seed_part.size());
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), noise.seed);
    if (error != std::errc() || end != text.data() + text.size()) {
      refuse_noise(name, "found the seed '" + std::string(text) + "', expected a whole number of 64 bits");
    }
    unseeded = name.substr(0, seed);
  }
  if (unseeded.starts_with(relative_part)) {
    noise.amount = parse_amount(name, unseeded.substr(relative_part.size()), 1);
    return noise;
  }
  if (!unseeded.starts_with(ulp_part)) refuse_noise(name, "is unknown; expected relative:R or ulp:N,FORMAT");
  const std::string_view rest = unseeded.substr(ulp_part.size());
  const std::size_t comma = rest.find(',');
  if (comma == std::string_view::npos) refuse_noise(name, "has no format; expected ulp:N,FORMAT");
  noise.kind = Noise::Kind::ulp;
  noise.amount = parse_amount(name, rest.substr(0, comma), most_ulps);
  std::string known;
  for (const Format format : float_formats()) {
    noise.steps = format;
    if (name_of(format) == rest.substr(comma + 1)) return noise;
    known += (known.empty() ? "" : ", ") + std::string(name_of(format));
  }
  refuse_noise(name, "format '" + std::string(rest.substr(comma + 1)) + "' has no steps; known: " + known);
}

std::string name_of(const Noise& noise) {
  char amount[32];
  const auto written = std::to_chars(amount, amount + sizeof amount, noise.amount);
  const std::string number(amount, written.ptr);
  std::string name = noise.kind == Noise::Kind::relative
                         ? std::string(relative_part) + number
                         : std::string(ulp_part) + number + "," + std::string(name_of(noise.steps));
  if (noise.seed != 0) name += std::string(seed_part) + std::to_string(noise.seed);
  return name;
}

std::string file_name_of(const Noise& noise) {
  std::string name = name_of(noise);
  std::ranges::replace_if(name, [](char letter) { return letter == ':' || letter == ','; }, '-');
  return name;
}

void add_noise(const Noise& noise, std::uint64_t layer, std::int64_t first, std::int64_t count, float* values) {
  const Grid grid = properties_of(noise.steps).grid;
  const std::uint64_t key = mixed(noise.seed ^ mixed(layer));
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = values[i];
    if (!std::isfinite(value)) continue;
    const double size =
        noise.kind == Noise::Kind::relative
            ? std::fabs(value)
            : std::ldexp(1.0, std::max(value == 0 ? grid.min_exponent : std::ilogb(value), grid.min_exponent) -
                                  grid.mantissa_bits);
    const std::uint64_t hash =
        mixed(mixed(key + static_cast<std::uint64_t>(first + i)) ^ std::bit_cast<std::uint32_t>(value));
    const double error = noise.amount * size;
    values[i] = static_cast<float>((hash & 1U) != 0 ? value + error : value - error);
  }
}

std::uint64_t hash_of(std::string_view layer) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char letter : layer) hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100000001B3U;
  return hash;
}

}  // namespace pi0::formats
