#include "model/orbax/zarr.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "model/checkpoint_error.h"
#include "model/json_fields.h"

namespace pi0::orbax {
namespace {

using model::CheckpointError;
using model::Json;
using model::JsonFields;

struct DTypeNames {
  DType dtype;
  std::uint64_t bytes;
  const char* name;    // in version 3 and in messages
  const char* zarray;  // in version 2
};
constexpr std::array<DTypeNames, 3> dtypes{{{DType::float32, 4, "float32", "<f4"},
                                            {DType::bfloat16, 2, "bfloat16", "bfloat16"},
                                            {DType::float16, 2, "float16", "<f2"}}};

const DTypeNames& row(DType dtype) {
  return *std::ranges::find_if(dtypes, [&](const DTypeNames& names) { return names.dtype == dtype; });
}

DType read_dtype(JsonFields& fields, const std::string& key, const char* DTypeNames::*name) {
  const std::string found = fields.text(key);
  for (const DTypeNames& known : dtypes) {
    if (found == known.*name) return known.dtype;
  }
  fields.mistyped(key, std::string(dtypes[0].*name) + ", " + dtypes[1].*name + " or " + dtypes[2].*name);
}

// A list of as many positive integers as the array has axes.
std::vector<std::int64_t> read_sizes(JsonFields& fields, const std::string& key, std::optional<std::size_t> rank) {
  constexpr std::size_t most_axes = 8;
  constexpr std::int64_t largest = std::int64_t{1} << 40;
  const std::string expected = rank ? "a positive integer for each of the array's " + std::to_string(*rank) + " axes"
                                    : "a list of at most 8 positive integers";
  const Json& list = fields.value(key);
  if (!list.is_array() || list.size() > most_axes || (rank && list.size() != *rank)) fields.mistyped(key, expected);
  std::vector<std::int64_t> sizes;
  for (const Json& size : list) {
    if (!size.is_number_unsigned() || size < 1 || size > largest) fields.mistyped(key, expected);
    sizes.push_back(size.get<std::int64_t>());
  }
  return sizes;
}

void check_chunks(JsonFields& fields, const std::string& key, const std::vector<std::int64_t>& chunk,
                  const std::vector<std::int64_t>& whole) {
  for (std::size_t axis = 0; axis < whole.size(); ++axis) {
    if (chunk[axis] > whole[axis]) fields.mistyped(key, "no more than " + shown(whole));
  }
}

std::uint64_t total_bytes(const ArrayInfo& info, JsonFields& fields) {
  std::uint64_t bytes = bytes_of(info.dtype);
  for (const std::int64_t size : info.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(size), &bytes) || bytes >> 46 != 0) {
      fields.mistyped("shape", "less than 2^46 bytes in all");
    }
  }
  return bytes;
}

bool is_zero(const Json& value) {
  return value.is_number() && value.get<double>() == 0 && !std::signbit(value.get<double>());
}

void expect(JsonFields& fields, const std::string& key, const Json& expected) {
  if (fields.value(key) != expected) fields.mistyped(key, model::shown(expected));
}

// A codec of version 3, or whatever else has a name and perhaps a configuration. Both must be read whole.
struct Named {
  std::string name;
  JsonFields fields;
  JsonFields configuration;
};

Named read_named(JsonFields fields) {
  static const Json no_configuration = Json::object();
  const std::string name = fields.text("name");
  JsonFields configuration =
      fields.has("configuration") ? fields.object("configuration") : JsonFields(no_configuration, name);
  fields.finish();
  return {name, std::move(fields), std::move(configuration)};
}

Codecs read_codecs(std::vector<JsonFields> list, JsonFields& owner, const std::string& key) {
  Codecs codecs;
  std::string order;
  for (JsonFields& item : list) {
    Named codec = read_named(std::move(item));
    order += (order.empty() ? "" : ", ") + codec.name;
    if (codec.name == "bytes") {
      if (codec.configuration.has("endian")) expect(codec.configuration, "endian", "little");
    } else if (codec.name == "zstd") {
      codecs.zstd = true;
      codec.configuration.has("level");
      codec.configuration.has("checksum");
    } else if (codec.name == "crc32c") {
      codecs.crc32c = true;
    } else {
      codec.fields.mistyped("name", "bytes, zstd or crc32c");
    }
    codec.configuration.finish();
  }
  const std::string expected = std::string("bytes") + (codecs.zstd ? ", zstd" : "") + (codecs.crc32c ? ", crc32c" : "");
  if (order != expected) owner.refuse("'" + key + "' are " + order + " in turn, expected " + expected);
  return codecs;
}

void read_sharding(Named& codec, ZarrLayout& layout) {
  JsonFields& fields = codec.configuration;
  const std::vector<std::int64_t> shard = layout.chunk;
  layout.shard = shard;
  layout.chunk = read_sizes(fields, "chunk_shape", shard.size());
  for (std::size_t axis = 0; axis < shard.size(); ++axis) {
    if (shard[axis] % layout.chunk[axis] != 0) {
      fields.mistyped("chunk_shape", "sizes that divide those of the shard, " + shown(shard));
    }
  }
  layout.codecs = read_codecs(fields.objects("codecs"), fields, "codecs");
  layout.index_codecs = read_codecs(fields.objects("index_codecs"), fields, "index_codecs");
  if (layout.index_codecs.zstd) fields.refuse("'index_codecs' hold zstd, expected bytes and crc32c");
  if (fields.has("index_location")) {
    const std::string place = fields.text("index_location");
    if (place != "start" && place != "end") fields.mistyped("index_location", "\"start\" or \"end\"");
    layout.index_at_end = place == "end";
  }
  fields.finish();
}

ZarrLayout read_zarray(const Json& json, const std::string& source) {
  JsonFields fields(json, source);
  expect(fields, "zarr_format", 2);
  ZarrLayout layout;
  layout.info.dtype = read_dtype(fields, "dtype", &DTypeNames::zarray);
  layout.info.shape = read_sizes(fields, "shape", std::nullopt);
  layout.info.bytes = total_bytes(layout.info, fields);
  layout.chunk = read_sizes(fields, "chunks", layout.info.shape.size());
  check_chunks(fields, "chunks", layout.chunk, layout.info.shape);
  expect(fields, "order", "C");
  if (fields.has("filters")) expect(fields, "filters", nullptr);
  if (fields.has("dimension_separator")) {
    const std::string separator = fields.text("dimension_separator");
    if (separator != "." && separator != "/") fields.mistyped("dimension_separator", "\".\" or \"/\"");
    layout.separator = separator[0];
  }
  if (!fields.value("compressor").is_null()) {
    JsonFields compressor = fields.object("compressor");
    expect(compressor, "id", "zstd");
    compressor.has("level");
    compressor.has("checksum");
    compressor.finish();
    layout.codecs.zstd = true;
  }
  layout.absent_is_zero = is_zero(fields.value("fill_value"));
  fields.finish();
  return layout;
}

ZarrLayout read_zarr_json(const Json& json, const std::string& source) {
  JsonFields fields(json, source);
  expect(fields, "zarr_format", 3);
  expect(fields, "node_type", "array");
  ZarrLayout layout;
  layout.info.dtype = read_dtype(fields, "data_type", &DTypeNames::name);
  layout.info.shape = read_sizes(fields, "shape", std::nullopt);
  layout.info.bytes = total_bytes(layout.info, fields);
  Named grid = read_named(fields.object("chunk_grid"));
  if (grid.name != "regular") grid.fields.mistyped("name", "\"regular\"");
  layout.chunk = read_sizes(grid.configuration, "chunk_shape", layout.info.shape.size());
  check_chunks(grid.configuration, "chunk_shape", layout.chunk, layout.info.shape);
  grid.configuration.finish();

  Named encoding = read_named(fields.object("chunk_key_encoding"));
  if (encoding.name != "default" && encoding.name != "v2") encoding.fields.mistyped("name", "\"default\" or \"v2\"");
  layout.key_prefix = encoding.name == "default" ? "c" : "";
  layout.separator = encoding.name == "default" ? '/' : '.';
  if (encoding.configuration.has("separator")) {
    const std::string separator = encoding.configuration.text("separator");
    if (separator != "." && separator != "/") encoding.configuration.mistyped("separator", "\".\" or \"/\"");
    layout.separator = separator[0];
  }
  encoding.configuration.finish();

  std::vector<JsonFields> codecs = fields.objects("codecs");
  Named first = read_named(codecs.front());
  if (first.name == "sharding_indexed") {
    if (codecs.size() > 1) fields.refuse("'codecs' go on after sharding_indexed, which is not supported");
    read_sharding(first, layout);
  } else {
    layout.codecs = read_codecs(std::move(codecs), fields, "codecs");
  }
  layout.absent_is_zero = is_zero(fields.value("fill_value"));
  fields.has("attributes");
  fields.has("dimension_names");
  if (fields.has("storage_transformers")) expect(fields, "storage_transformers", Json::array());
  fields.finish();
  return layout;
}

ZarrLayout parsed(ZarrLayout (*read)(const Json&, const std::string&), const std::string& text,
                  const std::string& source) {
  try {
    return read(model::parse_json(text, source), source);
  } catch (const model::JsonFileError& error) {
    throw CheckpointError(error.what());
  }
}

}  // namespace

std::uint64_t bytes_of(DType dtype) { return row(dtype).bytes; }

const char* name_of(DType dtype) { return row(dtype).name; }

const char* zarray_name_of(DType dtype) { return row(dtype).zarray; }

std::string shown(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

std::string ZarrLayout::key(const std::vector<std::int64_t>& indices) const {
  std::string key = key_prefix;
  for (const std::int64_t index : indices)
    key += (key.empty() ? "" : std::string(1, separator)) + std::to_string(index);
  return key.empty() ? "0" : key;
}

ZarrLayout parse_zarray(const std::string& json, const std::string& source) {
  return parsed(read_zarray, json, source);
}

ZarrLayout parse_zarr_json(const std::string& json, const std::string& source) {
  return parsed(read_zarr_json, json, source);
}

}  // namespace pi0::orbax
