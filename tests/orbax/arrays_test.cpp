#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "model/checkpoint_error.h"
#include "model/orbax/array_store.h"
#include "model/orbax/crc32c.h"
#include "model/orbax/read_ahead.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

namespace pi0 {
namespace {

namespace fs = std::filesystem;
const fs::path goldens = "goldens/jax";

struct Expected {
  std::string dtype, shape, bytes;
};

// The tensors of a safetensors file, read without LibTorch.
std::map<std::string, Expected> read_expected(const fs::path& file) {
  const std::map<std::string, std::string> dtypes = {{"F32", "float32"}, {"BF16", "bfloat16"}, {"F16", "float16"}};
  const std::string content = test::read_all(file);
  std::uint64_t header = 0;
  std::memcpy(&header, content.data(), sizeof header);
  const std::string data = content.substr(sizeof header + header);
  const auto entries = nlohmann::json::parse(content.substr(sizeof header, header));
  std::map<std::string, Expected> tensors;
  for (const auto& [name, entry] : entries.items()) {
    const std::uint64_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    tensors[name] = {dtypes.at(entry["dtype"]), orbax::shown(entry["shape"].get<std::vector<std::int64_t>>()),
                     data.substr(begin, end - begin)};
  }
  return tensors;
}

// params.Group.matrix.value -> Group/matrix
std::string short_name(std::string name) {
  if (name.starts_with("params.")) name.erase(0, 7);
  if (name.ends_with(".value")) name.erase(name.size() - 6);
  std::ranges::replace(name, '.', '/');
  return name;
}

std::string read_rows(orbax::ArrayReader& reader, std::int64_t first, std::int64_t count) {
  std::string bytes(static_cast<std::uint64_t>(count) * reader.row_bytes(), '\0');
  reader.read(first, count, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

void compare(const fs::path& folder, const std::map<std::string, Expected>& expected) {
  const orbax::ArrayStore store(folder);
  CHECK(store.layouts().size() == expected.size());
  for (const auto& [name, layout] : store.layouts()) {
    INFO(folder << " " << name);
    const auto found = expected.find(short_name(name));
    REQUIRE(found != expected.end());
    CHECK(name_of(layout.info.dtype) == found->second.dtype);
    CHECK(orbax::shown(layout.info.shape) == found->second.shape);
    orbax::ArrayReader reader = store.reader(name);
    const std::string all = read_rows(reader, 0, reader.rows());
    CHECK(all == found->second.bytes);
    // Row by row, from the last to the first, and with a gap.
    for (std::int64_t step : {1, -1, 2}) {
      for (std::int64_t i = 0; i < reader.rows(); i += std::abs(step)) {
        const std::int64_t row = step < 0 ? reader.rows() - 1 - i : i;
        CHECK(read_rows(reader, row, 1) ==
              all.substr(static_cast<std::uint64_t>(row) * reader.row_bytes(), reader.row_bytes()));
      }
    }
  }
}

TEST_CASE("arrays are read as orbax reads them, in all the ways it saves them", "[orbax][golden]") {
  const auto expected = read_expected(goldens / "variants/orbax.safetensors");
  for (const char* name : {"ocdbt", "folders", "raw", "small_chunks", "zarr3", "zarr3_folders", "zarr3_small_chunks"}) {
    compare(goldens / "variants" / name, expected);
  }
}

TEST_CASE("arrays are read as TensorStore reads them: checksums, places of indices, absent chunks", "[orbax][golden]") {
  compare(goldens / "variants/tensorstore", read_expected(goldens / "variants/tensorstore.safetensors"));
}

TEST_CASE("a B+tree with inner nodes is read as TensorStore reads it", "[orbax][golden]") {
  compare(goldens / "variants/tall", read_expected(goldens / "variants/tall.safetensors"));
}

std::string hash_of(const std::string& bytes) {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 1099511628211ULL;
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

TEST_CASE("every array of openpi's own saves is what orbax reads, by the hash of its bytes", "[orbax][golden]") {
  for (const char* name : {"pi05_tiny", "pi0_lora"}) {
    const auto hashes = nlohmann::json::parse(test::read_all(goldens / name / "hashes.json"));
    const orbax::ArrayStore store(goldens / name / "params");
    CHECK(store.layouts().size() == hashes.size());
    for (const auto& [array, layout] : store.layouts()) {
      INFO(name << " " << array);
      orbax::ArrayReader reader = store.reader(array);
      CHECK(hash_of(read_rows(reader, 0, reader.rows())) == hashes.at(short_name(array)));
    }
  }
}

TEST_CASE("slices decoded ahead are the rows of the array, whatever is asked for", "[orbax]") {
  const orbax::ArrayStore store(goldens / "pi0_lora/params");
  for (const std::uint64_t most_bytes : {std::uint64_t{0}, std::uint64_t{100'000}, std::uint64_t{1} << 30}) {
    orbax::ReadAhead ahead(3, most_bytes);
    std::map<std::string, std::size_t> numbers;
    for (const auto& [name, layout] : store.layouts()) numbers[name] = ahead.add(store.reader(name), 3);
    const auto check = [&](const std::string& name, std::int64_t index) {
      orbax::ArrayReader reader = store.reader(name);
      const std::int64_t first = 3 * index, rows = std::min<std::int64_t>(3, reader.rows() - first);
      if (rows < 1) return;
      const std::span<const std::byte> slice = ahead.slice(numbers[name], index);
      const std::string expected = read_rows(reader, first, rows);
      REQUIRE(slice.size() == expected.size());
      CHECK(std::memcmp(slice.data(), expected.data(), slice.size()) == 0);
    };
    for (const std::int64_t index : {0, 1, 1, 0, 2, 1}) {
      for (const auto& [name, number] : numbers) check(name, index);
    }
    for (const auto& [name, number] : numbers) ahead.release(number);
    check(numbers.begin()->first, 0);
  }
}

TEST_CASE("CRC-32C is Castagnoli's", "[orbax]") {
  const std::string digits = "123456789";
  const auto bytes = std::as_bytes(std::span(digits));
  CHECK(orbax::crc32c(bytes) == 0xE3069283U);
  CHECK(orbax::crc32c(bytes.subspan(5), orbax::crc32c(bytes.first(5))) == 0xE3069283U);
}

}  // namespace
}  // namespace pi0
