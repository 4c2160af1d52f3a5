#include "model/orbax/array_writer.h"

#include <zstd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>

#include "model/orbax/ocdbt.h"
#include "model/orbax/ocdbt_writer.h"

namespace pi0::orbax {
namespace {

using Json = nlohmann::ordered_json;
using model::WriteBytes;

constexpr int compression_level = 1;  // orbax's

void check_zstd(std::size_t result) {
  if (ZSTD_isError(result) != 0) throw std::runtime_error(std::string("zstd: ") + ZSTD_getErrorName(result));
}

// Writes the array's elements as one zstd frame. Returns its bytes.
std::uint64_t write_chunk(const WrittenArray& array, const WriteBytes& write, int threads) {
  const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context(ZSTD_createCCtx(), &ZSTD_freeCCtx);
  if (context == nullptr) throw std::bad_alloc();
  std::uint64_t expected = bytes_of(array.dtype);
  for (const std::int64_t size : array.shape) expected *= static_cast<std::uint64_t>(size);
  check_zstd(ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, compression_level));
  check_zstd(ZSTD_CCtx_setPledgedSrcSize(context.get(), expected));
  if (threads > 1) ZSTD_CCtx_setParameter(context.get(), ZSTD_c_nbWorkers, threads);  // refused by some builds of zstd
  std::vector<std::byte> output(ZSTD_CStreamOutSize());
  std::uint64_t taken = 0, written = 0;
  const auto compress = [&](ZSTD_inBuffer in, ZSTD_EndDirective end) {
    std::size_t left = 1;
    while (in.pos < in.size || (end == ZSTD_e_end && left > 0)) {
      ZSTD_outBuffer out{output.data(), output.size(), 0};
      check_zstd(left = ZSTD_compressStream2(context.get(), &out, &in, end));
      if (out.pos > 0) write(output.data(), out.pos);
      written += out.pos;
    }
  };
  array.elements([&](const void* data, std::size_t size) {
    taken += size;
    compress({data, size, 0}, ZSTD_e_continue);
  });
  if (taken != expected) {
    throw std::logic_error("array '" + array.name + "' has " + std::to_string(expected) + " bytes, but " +
                           std::to_string(taken) + " were given");
  }
  compress({nullptr, 0, 0}, ZSTD_e_end);
  return written;
}

std::string zarray(const WrittenArray& array) {
  return Json{{"chunks", array.shape},
              {"compressor", {{"id", "zstd"}, {"level", compression_level}}},
              {"dimension_separator", "."},
              {"dtype", zarray_name_of(array.dtype)},
              {"fill_value", nullptr},
              {"filters", nullptr},
              {"order", "C"},
              {"shape", array.shape},
              {"zarr_format", 2}}
      .dump();
}

std::string chunk_key(const WrittenArray& array) {
  return array.name + "/" + ZarrLayout{}.key(std::vector<std::int64_t>(array.shape.size(), 0));
}

// _METADATA, which orbax rebuilds its tree from. Its keys are Python's text of a tuple.
std::string tree_metadata(const std::vector<WrittenArray>& arrays, Form form) {
  constexpr int key_of_a_dict = 2;
  Json tree = Json::object();
  for (const WrittenArray& array : arrays) {
    std::string tuple;
    Json path = Json::array();
    std::size_t begin = 0;
    while (begin <= array.name.size()) {
      const std::size_t end = std::min(array.name.find('.', begin), array.name.size());
      const std::string part = array.name.substr(begin, end - begin);
      tuple += (tuple.empty() ? "'" : ", '") + part + "'";
      path.push_back({{"key", part}, {"key_type", key_of_a_dict}});
      begin = end + 1;
    }
    tree["(" + tuple + (path.size() == 1 ? ",)" : ")")] = {
        {"key_metadata", path},
        {"value_metadata", {{"value_type", "jax.Array"}, {"skip_deserialize", false}, {"write_shape", array.shape}}}};
  }
  return Json{{"tree_metadata", tree},
              {"use_ocdbt", form == Form::ocdbt},
              {"use_zarr3", false},
              {"store_array_data_equal_to_fill_value", true},
              {"custom_metadata", nullptr}}
      .dump();
}

std::string random_bytes(std::size_t count) {
  std::random_device device;
  std::string bytes;
  for (std::size_t i = 0; i < count; ++i) bytes += static_cast<char>(device() & 255);
  return bytes;
}

void write_text(const WriteFile& write, const std::string& path, const std::string& text) {
  write(path, [&](const WriteBytes& bytes) { bytes(text.data(), text.size()); });
}

void write_ocdbt(const WriteFile& write, const std::vector<WrittenArray>& arrays, int threads) {
  const std::string id = random_bytes(16);
  std::string file = "d/";
  for (const char c : id) {
    for (const int shift : {4, 0}) file += "0123456789abcdef"[static_cast<unsigned char>(c) >> shift & 15];
  }
  std::vector<Node::Entry> entries;
  Part leaf;
  write(file, [&](const WriteBytes& bytes) {
    std::uint64_t offset = 0;
    for (const WrittenArray& array : arrays) {
      const std::uint64_t size = write_chunk(array, bytes, threads);
      entries.push_back({array.name + "/.zarray", true, zarray(array), {}, 0});
      entries.push_back({chunk_key(array), false, {}, {0, offset, size}, 0});
      offset += size;
    }
    std::ranges::sort(entries, {}, &Node::Entry::key);
    const std::string node = block(BlockKind::node, leaf_body(entries, file));
    bytes(node.data(), node.size());
    leaf = {0, offset, node.size()};
  });
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
  write_text(
      write, manifest_name,
      block(BlockKind::manifest, manifest_body(id, file, leaf, entries, static_cast<std::uint64_t>(nanoseconds))));
}

}  // namespace

void write_arrays(const WriteFile& write, std::vector<WrittenArray> arrays, Form form, int threads) {
  std::ranges::sort(arrays, {}, &WrittenArray::name);
  if (form == Form::ocdbt) {
    write_ocdbt(write, arrays, threads);
  } else {
    for (const WrittenArray& array : arrays) {
      write(chunk_key(array), [&](const WriteBytes& bytes) { write_chunk(array, bytes, threads); });
      write_text(write, array.name + "/.zarray", zarray(array));
    }
  }
  write_text(write, "_METADATA", tree_metadata(arrays, form));
}

}  // namespace pi0::orbax
