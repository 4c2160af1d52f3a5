// Scaled formats against what torchao, gfloat and pi0-quant's HEAD make of values, and each kernel against the others.
#include "quant/formats/scaled_rounding.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "support/catch.h"
#include "support/instruction_sets.h"

namespace pi0 {
namespace {

using formats::Granularity;
using formats::NumberFormat;
using formats::parse_number_format;
using formats::Range;
using formats::ScaledKernels;

struct Matrix {
  std::int64_t rows = 0, length = 0;
  std::vector<float> values;

  formats::Rows<const float> view() const { return {values.data(), rows, length, length}; }
  formats::Rows<float> view() { return {values.data(), rows, length, length}; }
};

std::map<std::string, Matrix> read_goldens(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof(size));
  std::map<std::string, Matrix> matrices;
  const auto header = nlohmann::json::parse(bytes.substr(8, size));
  for (const auto& [name, entry] : header.items()) {
    Matrix& matrix = matrices[name];
    matrix.rows = entry["shape"][0];
    matrix.length = entry["shape"][1];
    matrix.values.resize(static_cast<std::size_t>(matrix.rows * matrix.length));
    const auto begin = entry["data_offsets"][0].get<std::size_t>();
    std::memcpy(matrix.values.data(), bytes.data() + 8 + size + begin, matrix.values.size() * sizeof(float));
  }
  return matrices;
}

bool same(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) || std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

std::size_t differences(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  std::size_t count = 0;
  for (std::size_t i = 0; i < a.size(); ++i) count += same(a[i], b[i]) ? 0 : 1;
  return count;
}

Matrix rounded(const ScaledKernels& kernels, const Matrix& matrix, const NumberFormat& format) {
  Matrix result = matrix;
  kernels.round(matrix.view(), result.values.data(), format, kernels.range(matrix.view()));
  return result;
}

// A format's real codes and scales.
struct Stored {
  std::vector<std::uint8_t> codes;
  std::vector<float> scales, zero_points;

  Stored(const ScaledKernels& kernels, const Matrix& matrix, const NumberFormat& format) {
    const formats::CodeLayout layout = formats::layout_of(format, matrix.length);
    codes.resize(static_cast<std::size_t>(matrix.rows * layout.row_bytes));
    scales.resize(static_cast<std::size_t>(layout.scale_rows(matrix.rows) * layout.scales_per_row));
    zero_points.resize(scales.size());
    kernels.encode(matrix.view(), format, kernels.range(matrix.view()), 0,
                   {codes.data(), scales.data(), zero_points.data()});
  }

  formats::CodesFrom view() const { return {codes.data(), scales.data(), zero_points.data()}; }
};

const char* const golden_path = "goldens/formats/format_goldens.safetensors";

TEST_CASE("every golden is met in all bits by every instruction set", "[formats]") {
  const auto goldens = read_goldens(golden_path);
  std::size_t checked = 0;
  for (const auto& [name, expected] : goldens) {
    if (name[0] != 'y') continue;
    INFO(name);
    const std::size_t dot = name.find('.', 2);
    const NumberFormat format = parse_number_format(name.substr(dot + 1));
    const Matrix& values = goldens.at("x" + name.substr(1, dot - 1));
    for (const auto& set : test::instruction_sets()) {
      INFO(set.name);
      CHECK(differences(rounded(*set.scaled, values, format).values, expected.values) == 0);
    }
    ++checked;
  }
  CHECK(checked == 405);
}

TEST_CASE("values of a format that fits bfloat16 are exact in it", "[formats]") {
  std::size_t checked = 0;
  for (const auto& [name, values] : read_goldens(golden_path)) {
    if (name[0] != 'y' || !fits_bfloat16(parse_number_format(name.substr(name.find('.', 2) + 1)))) continue;
    INFO(name);
    std::size_t others = 0;
    for (const float value : values.values) {
      const bool counts = std::abs(value) >= std::numeric_limits<float>::min();  // it leaves out the very smallest
      others += counts && (std::bit_cast<std::uint32_t>(value) & 0xFFFFU) != 0 ? 1 : 0;
    }
    CHECK(others == 0);
    ++checked;
  }
  CHECK(checked > 150);
}

const std::vector<std::string>& some_of_all_formats() {
  static const std::vector<std::string> names = {"float8_e4m3",
                                                 "float8_e5m2",
                                                 "float6_e2m3",
                                                 "float6_e3m2",
                                                 "float4_e2m1",
                                                 "float8_e4m3:tensor:po2",
                                                 "float8_e5m2:tensor:scaled",
                                                 "float8_e4m3:row",
                                                 "float8_e5m2:group128",
                                                 "float8_e4m3:tile128",
                                                 "float6_e2m3:group16",
                                                 "float4_e2m1:tensor",
                                                 "int2:group16",
                                                 "int3:row",
                                                 "int5:group32:asymmetric",
                                                 "int6:tensor:asymmetric",
                                                 "int7:group64",
                                                 "int8:row:asymmetric",
                                                 "int4:group128:asymmetric",
                                                 "int4:tile128",
                                                 "int8:tensor",
                                                 "mxfp8_e4m3",
                                                 "mxfp8_e5m2:even",
                                                 "mxfp6_e2m3:ceil",
                                                 "mxfp6_e3m2:rceil",
                                                 "mxfp4",
                                                 "float4_e2m1:group64:rceil",
                                                 "mxint8",
                                                 "nvfp4",
                                                 "nvfp4:one_level"};
  return names;
}

// Lengths that no group divides, values of many magnitudes, zeros.
std::vector<Matrix> odd_matrices() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<Matrix> matrices;
  for (const auto& [rows, length] : {std::pair(1, 1), {3, 7}, {2, 33}, {130, 260}, {1, 2100}, {5, 527}}) {
    Matrix matrix{rows, length, {}};
    for (int i = 0; i < rows * length; ++i) {
      matrix.values.push_back(i % 5 == 0 ? 0 : std::ldexp(normal(random), i / length * 7 % 280 - (rows > 1 ? 140 : 0)));
    }
    matrices.push_back(matrix);
  }
  matrices.push_back(matrices.back());
  matrices.back().values[100] = std::numeric_limits<float>::infinity();
  matrices.back().values[1000] = -std::numeric_limits<float>::infinity();
  matrices.back().values[1700] = std::numeric_limits<float>::quiet_NaN();
  return matrices;
}

TEST_CASE("instruction sets give the same values, codes and scales", "[formats]") {
  const auto sets = test::instruction_sets();
  for (const Matrix& matrix : odd_matrices()) {
    for (const std::string& name : some_of_all_formats()) {
      INFO(name << " " << matrix.rows << " x " << matrix.length);
      const NumberFormat format = parse_number_format(name);
      const Matrix expected = rounded(*sets[0].scaled, matrix, format);
      const Stored stored(*sets[0].scaled, matrix, format);
      for (const auto& set : sets) {
        INFO(set.name);
        CHECK(differences(rounded(*set.scaled, matrix, format).values, expected.values) == 0);
        const Stored other(*set.scaled, matrix, format);
        CHECK(other.codes == stored.codes);
        CHECK(differences(other.scales, stored.scales) == 0);
        CHECK(differences(other.zero_points, stored.zero_points) == 0);
      }
    }
  }
}

TEST_CASE("decoded codes are the rounded values, in all rows and in some", "[formats]") {
  for (const auto& set : test::instruction_sets()) {
    for (const Matrix& matrix : odd_matrices()) {
      for (const std::string& name : some_of_all_formats()) {
        INFO(set.name << " " << name << " " << matrix.rows << " x " << matrix.length);
        const NumberFormat format = parse_number_format(name);
        Matrix expected = rounded(*set.scaled, matrix, format), found = matrix;
        if (format.granularity == Granularity::none && formats::code_bits(format.element) < 8) {
          for (float& value : expected.values) {  // no code for NaN
            if (std::isnan(value)) value = formats::grid_of(format.element).largest;
          }
        }
        const Stored stored(*set.scaled, matrix, format);
        set.scaled->decode(stored.view(), format, 0, found.view());
        CHECK(differences(found.values, expected.values) == 0);

        const std::int64_t first = matrix.rows / 2;
        std::vector<float> last(static_cast<std::size_t>((matrix.rows - first) * matrix.length));
        set.scaled->decode(stored.view(), format, first,
                           {last.data(), matrix.rows - first, matrix.length, matrix.length});
        CHECK(differences(last, {expected.values.begin() + first * matrix.length, expected.values.end()}) == 0);
      }
    }
  }
}

TEST_CASE("elements without scales, scaled, are the rounded values", "[formats]") {
  const Matrix matrix = odd_matrices()[3];
  for (const auto& set : test::instruction_sets()) {
    for (const std::string& name : some_of_all_formats()) {
      INFO(set.name << " " << name);
      const NumberFormat format = parse_number_format(name);
      const Matrix expected = rounded(*set.scaled, matrix, format);
      const Stored stored(*set.scaled, matrix, format);
      std::vector<std::uint16_t> elements(matrix.values.size());
      set.scaled->decode_elements(stored.view(), format, 0,
                                  {elements.data(), matrix.rows, matrix.length, matrix.length});
      const formats::CodeLayout layout = formats::layout_of(format, matrix.length);
      const std::int64_t group = format.group == 0 ? matrix.length : format.group;
      std::vector<float> found;
      for (std::int64_t i = 0; i < matrix.rows * matrix.length; ++i) {
        const float element =
            std::bit_cast<float>(static_cast<std::uint32_t>(elements[static_cast<std::size_t>(i)]) << 16);
        const std::int64_t row = i / matrix.length / layout.rows_per_scale * layout.scales_per_row;
        const auto place = static_cast<std::size_t>(row + i % matrix.length / group);
        found.push_back(layout.scales_per_row == 0 ? element : element * stored.scales[place]);
      }
      CHECK(differences(found, expected.values) == 0);
    }
  }
}

TEST_CASE("rows with gaps are rounded and encoded as rows without, and gaps stay", "[formats]") {
  const Matrix matrix = odd_matrices()[3];
  constexpr std::int64_t stride = 300;
  constexpr float untouched = 1.2345678F;
  Matrix gapped{matrix.rows, matrix.length,
                std::vector<float>(static_cast<std::size_t>(matrix.rows * stride), untouched)};
  const auto at = [&](std::int64_t i) {
    return static_cast<std::size_t>(i / matrix.length * stride + i % matrix.length);
  };
  for (std::int64_t i = 0; i < matrix.rows * matrix.length; ++i)
    gapped.values[at(i)] = matrix.values[static_cast<std::size_t>(i)];
  for (const auto& set : test::instruction_sets()) {
    const Range range = set.scaled->range(matrix.view());
    for (const std::string& name : some_of_all_formats()) {
      INFO(set.name << " " << name);
      const NumberFormat format = parse_number_format(name);
      const Matrix expected = rounded(*set.scaled, matrix, format);
      std::vector<float> found = gapped.values;
      set.scaled->round({found.data(), matrix.rows, matrix.length, stride}, found.data(), format, range);
      std::size_t wrong = 0;
      for (std::int64_t i = 0; i < matrix.rows * stride; ++i) {
        const std::int64_t row = i / stride, column = i % stride;
        const float value = column < matrix.length
                                ? expected.values[static_cast<std::size_t>(row * matrix.length + column)]
                                : untouched;
        wrong += same(found[static_cast<std::size_t>(i)], value) ? 0 : 1;
      }
      CHECK(wrong == 0);

      const Stored dense(*set.scaled, matrix, format);
      Stored apart = dense;
      std::fill(apart.codes.begin(), apart.codes.end(), std::uint8_t{0});
      set.scaled->encode({gapped.values.data(), matrix.rows, matrix.length, stride}, format, range, 0,
                         {apart.codes.data(), apart.scales.data(), apart.zero_points.data()});
      CHECK(apart.codes == dense.codes);
      CHECK(differences(apart.scales, dense.scales) == 0);
    }
  }
}

TEST_CASE("the error of rounded values is counted against the reference", "[formats]") {
  const Matrix matrix = odd_matrices()[4];
  for (const auto& set : test::instruction_sets()) {
    for (const std::string name : {"mxfp4", "float8_e4m3:tile128", "int4:group128", "bfloat16"}) {
      INFO(set.name << " " << name);
      const NumberFormat format = parse_number_format(name);
      Matrix found = matrix;
      const Range range = set.scaled->range(matrix.view());
      const auto sums = set.scaled->round_and_compare(found.view(), matrix.values.data(), format, range);
      CHECK(differences(found.values, rounded(*set.scaled, matrix, format).values) == 0);
      double squares = 0;
      for (std::size_t i = 0; i < matrix.values.size(); ++i) {
        squares += std::pow(static_cast<double>(matrix.values[i] - found.values[i]), 2);
      }
      CHECK(squares > 0);
      CHECK(std::abs(sums.squares - squares) <= 1e-5 * squares);
      CHECK(sums.largest == std::fmax(range.largest, -range.smallest));
    }
  }
}

TEST_CASE("ranges are of values and zero, and one NaN spoils them", "[formats]") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const auto& set : test::instruction_sets()) {
    std::vector<float> values(100, 2.0F);
    const auto range = [&] { return set.scaled->range({values.data(), 4, 21, 25}); };
    CHECK((range().smallest == 0 && range().largest == 2));
    values[24] = nan;  // in the gap
    values[95] = -3;
    CHECK((range().smallest == -3 && range().largest == 2));
    values[50] = -infinity;
    CHECK((range().smallest == -infinity && range().largest == 2));
    values[51] = -nan;
    CHECK((std::isnan(range().smallest) && std::isnan(range().largest)));
    CHECK((set.scaled->range({values.data(), 0, 21, 25}).largest == 0));
  }
  CHECK(formats::combined({-1, 2}, {-3, 1}).smallest == -3);
  CHECK(formats::combined({-1, 2}, {-3, 1}).largest == 2);
  CHECK(std::isnan(formats::combined({-1, 2}, {nan, nan}).largest));
}

}  // namespace
}  // namespace pi0
