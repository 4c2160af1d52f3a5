// The loops of scaled formats over plain memory, for several instruction sets like rounding_loops.h.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "quant/formats/code_loops.h"
#include "quant/formats/rounding_loops.h"
#include "quant/formats/scale_rules.h"

namespace pi0::formats {
namespace {

// Integers as the widest vector that all instruction sets have: GCC makes worse code of a maximum over a loop.
using Four [[gnu::vector_size(16)]] = std::int32_t;

Four four_at(const float* values) {
  Four bits;
  std::memcpy(&bits, values, sizeof(bits));
  return bits;
}

// The largest of zero and what change(bits of a value) gives, an integer or four.
template <class Change>
[[gnu::always_inline]] inline std::int32_t largest_of(const float* values, std::int64_t count, const Change& change) {
  const auto larger = [](auto a, auto b) { return a > b ? a : b; };
  Four most[4] = {};
  std::int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    for (int part = 0; part < 4; ++part) most[part] = larger(most[part], change(four_at(values + i + 4 * part)));
  }
  Four all = larger(larger(most[0], most[1]), larger(most[2], most[3]));
  all = larger(all, __builtin_shufflevector(all, all, 2, 3, 0, 1));
  all = larger(all, __builtin_shufflevector(all, all, 1, 0, 3, 2));
  std::int32_t largest = all[0];
  for (; i < count; ++i) largest = larger(largest, change(static_cast<std::int32_t>(bits_of(values[i]))));
  return largest;
}

// A NaN's bits are above those of all magnitudes, so that a NaN comes out if there is one.
float largest_magnitude(const float* values, std::int64_t count) {
  return std::bit_cast<float>(largest_of(values, count, [](auto bits) { return bits & 0x7FFFFFFF; }));
}

// Values of the other sign are negative integers, and do not count.
Range range_of(const float* values, std::int64_t count) {
  const float largest = std::bit_cast<float>(largest_of(values, count, [](auto bits) { return bits; }));
  const float down = std::bit_cast<float>(largest_of(values, count, [](auto bits) { return bits ^ INT32_MIN; }));
  if (largest != largest || down != down) return {not_a_number, not_a_number};
  return {-down, largest};
}

float magnitude_of(const Range& range) {  // NaN stays
  const float down = -range.smallest;
  return down > range.largest ? down : range.largest;
}

Range range(const Rows<const float>& values) {
  Range all;
  for (std::int64_t row = 0; row < values.rows; ++row) {
    all = combined(all, range_of(values.values + row * values.stride, values.length));
  }
  return all;
}

std::int64_t group_length(const NumberFormat& format, std::int64_t length) {
  return format.group == 0 ? length : format.group;
}

// The ranges of a chunk's groups over the rows that share their scales.
void find_ranges(ScaleChunk& chunk, const Rows<const float>& rows, const NumberFormat& format, std::int64_t first) {
  const std::int64_t group = group_length(format, rows.length);
  const float* const values = rows.values + first;
  const auto size_of = [&](std::int64_t g) { return std::min(group, rows.length - first - g * group); };
  if (format.rule == Rule::asymmetric) {
    for (std::int64_t g = 0; g < chunk.count; ++g) {
      const Range found = range_of(values + g * group, size_of(g));
      chunk.smallest[g] = found.smallest;
      chunk.largest[g] = found.largest;
    }
    return;
  }
  for (std::int64_t g = 0; g < chunk.count; ++g) chunk.largest[g] = largest_magnitude(values + g * group, size_of(g));
  for (std::int64_t row = 1; row < rows.rows; ++row) {
    for (std::int64_t g = 0; g < chunk.count; ++g) {
      const float other = largest_magnitude(values + row * rows.stride + g * group, size_of(g));
      chunk.largest[g] = above(bits_of(other), bits_of(chunk.largest[g])) ? other : chunk.largest[g];
    }
  }
}

// The scales of a chunk's groups.
void find_chunk(ScaleChunk& chunk, const Rows<const float>& rows, const NumberFormat& format, std::int64_t first,
                const Range& tensor) {
  if (format.granularity == Granularity::tensor) {
    chunk.smallest[0] = tensor.smallest;
    chunk.largest[0] = format.rule == Rule::asymmetric ? tensor.largest : magnitude_of(tensor);
  } else if (format.granularity != Granularity::none) {
    find_ranges(chunk, rows, format, first);
  }
  find_scales(chunk, format, magnitude_of(tensor));
}

// Calls group(first, count, index) for the groups of `size` in [begin, begin + count), whole or cut.
template <class Group>
[[gnu::always_inline]] inline void for_groups(std::int64_t begin, std::int64_t count, std::int64_t size,
                                              const Group& group) {
  for (std::int64_t i = begin, index = begin / size; i < begin + count; ++index) {
    const std::int64_t some = std::min((index + 1) * size, begin + count) - i;
    group(i, some, index);
    i += some;
  }
}

// Calls keep(scale row, first scale, chunk) with the scales of some groups, then part(row, first value, count, chunk,
// group's size) with those values of each row.
template <class Keep, class Part>
[[gnu::always_inline]] inline void for_scaled(const Rows<const float>& from, const NumberFormat& format,
                                              const Range& tensor, const Keep& keep, const Part& part) {
  const std::int64_t size = group_length(format, from.length);
  const std::int64_t rows_per_scale = format.granularity == Granularity::tile ? format.group : 1;
  for (std::int64_t row = 0; row < from.rows; row += rows_per_scale) {
    const std::int64_t rows = std::min(rows_per_scale, from.rows - row);
    const Rows<const float> some = {from.values + row * from.stride, rows, from.length, from.stride};
    for (std::int64_t first = 0; first < from.length; first += ScaleChunk::most * size) {
      ScaleChunk chunk;
      chunk.count = std::min(ScaleChunk::most, (from.length - first + size - 1) / size);
      find_chunk(chunk, some, format, first, tensor);
      keep(row, first / size, chunk);
      const std::int64_t count = std::min(chunk.count * size, from.length - first);
      for (std::int64_t r = 0; r < rows; ++r) part(row + r, first, count, chunk, size);
    }
  }
}

// The element of a value: on the grid, zero point added, to be scaled; and its code.
template <class Element, bool is_divided>
struct FloatElement {
  static constexpr Format format = Element::value;
  float operator()(float value, const Scale& scale) const {
    return round_one<format, Overflow::saturate>(is_divided ? value / scale.by : value * scale.by);
  }
  std::uint8_t code(float element) const { return static_cast<std::uint8_t>(code_of<format>(element)); }
};

template <bool is_divided>
struct IntegerElement {
  float least, most;
  float operator()(float value, const Scale& scale) const {
    const float steps = nearest_integer(is_divided ? value / scale.by : value * scale.by) + scale.zero_point;
    const std::uint32_t no_nan = bits_of(steps) & ~nan_mask(bits_of(steps) & 0x7FFFFFFFU);  // 0 for NaN
    return at_most(at_least(std::bit_cast<float>(no_nan), least), most);
  }
  std::uint8_t code(float element) const {
    return static_cast<std::uint8_t>(static_cast<std::int32_t>(element)) &
           static_cast<std::uint8_t>(2 * static_cast<std::int32_t>(most) + 1);
  }
};

// Calls call(element) with one of these.
template <class Call>
[[gnu::always_inline]] inline void with_element(const NumberFormat& format, const Call& call) {
  if (is_integer(format.element)) {
    const float most = grid_of(format.element).largest;
    return divides(format) ? call(IntegerElement<true>{-most - 1, most}) : call(IntegerElement<false>{-most - 1, most});
  }
  with_format_of<scaled_floats>(format.element, [&](auto known) {
    return divides(format) ? call(FloatElement<decltype(known), true>{}) : call(FloatElement<decltype(known), false>{});
  });
}

void round_scaled(const Rows<const float>& from, float* to, const NumberFormat& format, const Range& tensor) {
  if (const auto plain = plain_cast(format)) {
    round(from, to, *plain);
    return;
  }
  with_element(format, [&](const auto element) {
    const auto round_part = [&](std::int64_t row, std::int64_t begin, std::int64_t count, const ScaleChunk& chunk,
                                std::int64_t size) {
      const float* const in = from.values + row * from.stride + begin;
      float* const out = to + row * from.stride + begin;
      for_groups(0, count, size, [&](std::int64_t first, std::int64_t some, std::int64_t group) {
        const Scale scale = chunk.at(group);
        for_group(some, [&](std::int64_t i, std::int64_t) {
          out[first + i] = (element(in[first + i], scale) - scale.zero_point) * scale.scale;
        });
      });
    };
    for_scaled(from, format, tensor, [](auto...) {}, round_part);
  });
}

ErrorSums round_and_compare_scaled(const Rows<float>& values, const float* reference, const NumberFormat& format,
                                   const Range& tensor) {
  if (const auto plain = plain_cast(format)) return round_and_compare(values, reference, *plain);
  ErrorSums sums;
  Largest largest;
  const std::int64_t block = format.granularity == Granularity::tile ? format.group : 1;
  for (std::int64_t row = 0; row < values.rows; row += block) {
    const std::int64_t rows = std::min(block, values.rows - row);
    float* const some = values.values + row * values.stride;
    for (std::int64_t r = 0; r < rows; ++r) {
      for_all(values.length,
              [&](std::int64_t i, std::int64_t lane) { largest.see(lane, some[r * values.stride + i]); });
    }
    round_scaled({some, rows, values.length, values.stride}, some, format, tensor);
    for (std::int64_t r = 0; r < rows; ++r) {
      Largest after;
      round_and_compare_row<Format::float32>(some + r * values.stride, reference + (row + r) * values.stride,
                                             values.length, sums, after);
    }
  }
  sums.largest = largest.value();
  return sums;
}

void encode_scaled(const Rows<const float>& from, const NumberFormat& format, const Range& tensor,
                   std::int64_t first_row, const CodesTo& operand) {
  const CodeLayout layout = layout_of(format, from.length);
  if (const auto plain = plain_cast(format)) {
    for (std::int64_t row = 0; row < from.rows; ++row) {
      encode({from.values + row * from.stride, 1, from.length, from.length}, Format::float32,
             operand.codes + (first_row + row) * layout.row_bytes, *plain);
    }
    return;
  }
  const int bits = code_bits(format.element);
  const auto keep = [&](std::int64_t row, std::int64_t first, const ScaleChunk& chunk) {
    if (layout.scales_per_row == 0) return;
    const std::int64_t place = (first_row + row) / layout.rows_per_scale * layout.scales_per_row + first;
    for (std::int64_t g = 0; g < chunk.count; ++g) {
      operand.scales[place + g] = chunk.scale[g];
      if (format.rule == Rule::asymmetric) operand.zero_points[place + g] = chunk.zero_point[g];
    }
  };
  with_element(format, [&](const auto element) {
    const auto encode_part = [&](std::int64_t row, std::int64_t begin, std::int64_t count, const ScaleChunk& chunk,
                                 std::int64_t size) {
      const float* const in = from.values + row * from.stride + begin;
      std::uint8_t* const packed = operand.codes + (first_row + row) * layout.row_bytes + begin * bits / 8;
      for_pieces(count, [&](std::int64_t piece, std::int64_t length) {
        std::uint8_t codes[piece_length];
        float elements[piece_length];
        for_groups(piece, length, size, [&](std::int64_t first, std::int64_t some, std::int64_t group) {
          const Scale scale = chunk.at(group);
          for_group(some,
                    [&](std::int64_t i, std::int64_t) { elements[first - piece + i] = element(in[first + i], scale); });
        });
#pragma GCC ivdep
        for (std::int64_t i = 0; i < length; ++i) codes[i] = element.code(elements[i]);
        pack(codes, length, bits, packed + piece * bits / 8);
      });
    };
    for_scaled(from, format, tensor, keep, encode_part);
  });
}

constexpr ScaledKernels scaled_kernels = {
    pack, unpack, range, round_scaled, round_and_compare_scaled, encode_scaled, decode_scaled, decode_elements,
};

}  // namespace
}  // namespace pi0::formats
