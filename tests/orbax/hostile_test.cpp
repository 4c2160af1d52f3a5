// Damaged and malicious folders: each is refused with a message that says what is wrong, quickly and in little memory.
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "model/checkpoint_error.h"
#include "model/orbax/array_store.h"
#include "model/orbax/array_writer.h"
#include "model/orbax/crc32c.h"
#include "model/orbax/ocdbt_writer.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

namespace pi0 {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Reads every array. Returns what that says.
std::string refusal(const fs::path& folder) {
  try {
    const orbax::ArrayStore store(folder);
    for (const auto& [name, layout] : store.layouts()) {
      orbax::ArrayReader reader = store.reader(name);
      std::vector<std::byte> row(reader.row_bytes());
      for (std::int64_t i = 0; i < reader.rows(); ++i) reader.read(i, 1, row);
    }
  } catch (const model::CheckpointError& error) {
    return error.what();
  }
  return "accepted";
}

void write_store(const fs::path& folder, orbax::Form form) {
  std::vector<orbax::WrittenArray> arrays;
  for (const char* name : {"params.a.value", "params.b.value"}) {
    arrays.push_back({name, orbax::DType::float32, {4, 8}, [](const model::WriteBytes& write) {
                        std::vector<float> values(32);
                        for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i * i);
                        write(values.data(), values.size() * sizeof(float));
                      }});
  }
  orbax::write_arrays(
      [&](const std::string& path, const auto& content) {
        std::string bytes;
        content([&](const void* data, std::size_t size) { bytes.append(static_cast<const char*>(data), size); });
        test::write_all(folder / path, bytes);
      },
      arrays, form, 2);
}

// The body of a block, put together field by field.
struct Body {
  Body& varint(std::uint64_t value) {
    for (; value > 127; value >>= 7) text += static_cast<char>((value & 127) | 128);
    text += static_cast<char>(value);
    return *this;
  }
  Body& varints(std::initializer_list<std::uint64_t> values) {
    for (const std::uint64_t value : values) varint(value);
    return *this;
  }
  Body& bytes(const std::string& more) {
    text += more;
    return *this;
  }
  // A table of one file.
  Body& file(const std::string& name) { return varints({1, name.size(), 0}).bytes(name); }
  std::string text;
};

// A manifest that says of its root: in file d/x at byte 0.
std::string manifest(std::uint64_t size, int height = 0, const std::string& file = "d/x") {
  std::string body = orbax::manifest_body(std::string(16, 'i'), file, {0, 0, size}, {}, 0);
  // The height lies before: file, offset, size, three statistics, the time, and the number of older versions.
  const std::size_t after = Body().varints({0, 0, size, 0, size, 0}).text.size() + 8 + 1;
  body[body.size() - after - 1] = static_cast<char>(height);
  return orbax::block(orbax::BlockKind::manifest, body);
}

// What a store says whose root has this body.
std::string refusal_of_root(const std::string& body, int height = 0) {
  const test::TemporaryFolder folder;
  const std::string node = orbax::block(orbax::BlockKind::node, body);
  test::write_all(folder.path() / "d/x", node);
  test::write_all(folder.path() / "manifest.ocdbt", manifest(node.size(), height));
  const std::string said = refusal(folder.path());
  CHECK_THAT(said, contains_text((folder.path() / "d/x").string()));
  return said;
}

TEST_CASE("folders without arrays are refused", "[orbax][hostile]") {
  const test::TemporaryFolder folder;
  CHECK_THAT(refusal(folder.path()), contains_text("holds no arrays: neither manifest.ocdbt nor folders"));
  CHECK_THAT(refusal(folder.path() / "absent"), contains_text("absent: cannot be listed"));
  test::write_all(folder.path() / "d/x", "");
  test::write_all(folder.path() / "manifest.ocdbt", manifest(40));
  CHECK_THAT(refusal(folder.path()), contains_text("d/x: 'node': is 40 bytes at byte 0, but the file has 0"));
  fs::remove(folder.path() / "d/x");
  CHECK_THAT(refusal(folder.path()), contains_text("d/x: cannot be opened: No such file"));
  fs::create_directory(folder.path() / "d/x");
  CHECK_THAT(refusal(folder.path()), contains_text("d/x: is not a file"));
  fs::remove(folder.path() / "d/x");
  const std::string empty = orbax::block(orbax::BlockKind::node, orbax::leaf_body({}, "d/x"));
  test::write_all(folder.path() / "d/x", empty);
  test::write_all(folder.path() / "manifest.ocdbt", manifest(empty.size()));
  CHECK(refusal(folder.path()) == folder.path().string() + ": holds no arrays");
}

TEST_CASE("every cut and every flipped byte of a manifest or node is noticed", "[orbax][hostile]") {
  const test::TemporaryFolder folder;
  write_store(folder.path(), orbax::Form::ocdbt);
  REQUIRE(refusal(folder.path()) == "accepted");
  const std::string good = test::read_all(folder.path() / "manifest.ocdbt");
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] ^= 1;
    test::write_all(folder.path() / "manifest.ocdbt", bad);
    const std::string said = refusal(folder.path());
    CHECK_THAT(said, contains_text(i < 4    ? "expected 0x0cdb3a2a of an OCDBT manifest"
                                   : i < 12 ? "says that it has"
                                            : "its CRC-32C is 0x"));
    test::write_all(folder.path() / "manifest.ocdbt", good.substr(0, i));
    CHECK_THAT(refusal(folder.path()), contains_text("manifest.ocdbt: "));
  }
  test::write_all(folder.path() / "manifest.ocdbt", good);

  const fs::path data = fs::directory_iterator(folder.path() / "d")->path();
  const std::string values = test::read_all(data);
  for (std::size_t i = 0; i < values.size(); i += 11) {
    test::write_all(data, values.substr(0, i));
    CHECK_THAT(refusal(folder.path()), contains_text("is it complete?"));
  }
  std::string flipped = values;
  flipped[values.size() - 10] ^= 4;  // in the node
  test::write_all(data, flipped);
  CHECK_THAT(refusal(folder.path()), contains_text("its CRC-32C is 0x"));
}

TEST_CASE("manifests and blocks of other kinds are refused by name", "[orbax][hostile]") {
  const test::TemporaryFolder folder;
  const auto said_of = [&](const std::string& content) {
    test::write_all(folder.path() / "manifest.ocdbt", content);
    return refusal(folder.path());
  };
  const auto said_of_body = [&](const Body& body) {
    return said_of(orbax::block(orbax::BlockKind::manifest, std::string(16, 'i') + body.text));
  };
  CHECK_THAT(said_of_body(Body().varint(1)), contains_text("has manifest kind 1 (numbered), expected 0 (single)"));
  CHECK_THAT(said_of_body(Body().varint(5)), contains_text("has manifest kind 5, expected 0 (single)"));
  CHECK_THAT(said_of_body(Body().varints({0, 100, 1000, 4, 2})), contains_text("has compression 2, expected 0"));
  const Body start = Body().varints({0, 100, 1000, 4, 0}).file("d/x");
  CHECK_THAT(said_of_body(Body(start).varint(0)), contains_text("has no version"));
  CHECK_THAT(said_of_body(Body(start).varint(std::uint64_t{1} << 60)),
             contains_text("announces 1152921504606846976 versions"));
  CHECK_THAT(said_of_body(Body(start).varints({2, 9, 9})), contains_text("version 9 comes after version 9"));
  CHECK_THAT(said_of_body(Body(start).varints({1, 1, 0, 3, 0, 0})), contains_text("refers to file 3 of 1"));
  CHECK_THAT(said_of_body(Body(start).varints({1, 1, 0})), contains_text("ends too early"));
  CHECK_THAT(said_of_body(Body().bytes(std::string(11, '\xff'))), contains_text("a number of more than 64 bits"));

  // A block with another version, and another compression.
  for (const auto& [place, text] : {std::pair{12, "has version 7, expected 0"}, std::pair{13, "has compression 7"}}) {
    std::string block = orbax::block(orbax::BlockKind::manifest, "");
    block.resize(block.size() - 4);
    block[static_cast<std::size_t>(place)] = 7;
    const std::uint32_t sum = orbax::crc32c(std::as_bytes(std::span(block)));
    block.append(reinterpret_cast<const char*>(&sum), sizeof sum);
    CHECK_THAT(said_of(block), contains_text(text));
  }
}

TEST_CASE("nodes that contradict themselves are refused", "[orbax][hostile]") {
  const auto leaf = [&](const std::string& file = "d/x") { return Body().varint(0).file(file); };
  CHECK_THAT(refusal_of_root(leaf().varint(1 << 30).text),
             contains_text("announces 1073741824 keys, but only 0 bytes"));
  CHECK_THAT(refusal_of_root(leaf().varints({2, 5, 1, 1}).bytes("ab").text),
             contains_text("a name takes 5 bytes of the one before, which has 1"));
  CHECK_THAT(refusal_of_root(leaf().varints({1, 3}).bytes("a\x1b[").text),
             contains_text("a name has characters that are not printable ASCII"));
  CHECK_THAT(refusal_of_root(leaf().varints({1, 5000}).bytes(std::string(5000, 'k')).text),
             contains_text("a name has more than 4096 bytes"));
  CHECK_THAT(refusal_of_root(leaf().varints({1, 1}).bytes("k").varints({1, 7}).text),
             contains_text("a value of kind 7"));
  CHECK_THAT(refusal_of_root(leaf().varints({1, 1}).bytes("k").varints({9, 1, 4, 0}).text),
             contains_text("refers to file 4 of 1"));
  CHECK_THAT(refusal_of_root(leaf().varints({1, 1}).bytes("k").varints({9, 0}).text), contains_text("ends too early"));
  CHECK_THAT(refusal_of_root(leaf().varints({1, 1}).bytes("k").varints({1, 0}).bytes("vmore").text),
             contains_text("has 4 bytes after its end"));
  CHECK_THAT(refusal_of_root(leaf().varints({1, 1}).bytes("k").varints({99999, 1, 0, 0}).text),
             contains_text("'k': is 99999 bytes at byte 0, but the file has"));
  CHECK_THAT(refusal_of_root(leaf().varints({1, 1}).bytes("k").varints({99, 1, 0, ~std::uint64_t{0}}).text),
             contains_text("is it complete?"));
  for (const char* keys : {"ba", "aa"}) {
    CHECK_THAT(refusal_of_root(leaf().varints({2, 0, 1, 1}).bytes(keys).varints({0, 0, 0, 0}).text),
               contains_text("comes after '" + std::string(1, keys[0]) + "', expected sorted keys"));
  }
  for (const char* file : {"../x", "d/../../x", "/etc/passwd", "", ".."}) {
    CHECK_THAT(refusal_of_root(leaf(file).varint(0).text),
               contains_text("names the file '" + std::string(file) + "', expected one inside the folder"));
  }
  CHECK_THAT(refusal_of_root(Body().varints({0, 1, 3, 9}).bytes("d/x").text),
             contains_text("the base of file 'd/x' has 9 bytes, more than its name"));
}

TEST_CASE("trees that go in circles or never end are refused", "[orbax][hostile]") {
  // Height 1, a child that is the node itself.
  const auto inner = [](int height, int children, std::uint64_t offset, std::uint64_t size) {
    Body body;
    body.varint(static_cast<std::uint64_t>(height)).file("d/x").varint(static_cast<std::uint64_t>(children));
    for (int i = 1; i < children; ++i) body.varint(0);
    for (int i = 0; i < children; ++i) body.varint(1);                   // bytes of the key
    for (int i = 0; i < children; ++i) body.varint(0);                   // that are shared below
    for (int i = 0; i < children; ++i) body.bytes(std::string(1, 'k'));  // the key
    for (int i = 0; i < children; ++i) body.varint(0);                   // file
    for (int i = 0; i < children; ++i) body.varint(offset);
    for (int i = 0; i < children; ++i) body.varint(size);
    for (int i = 0; i < 3 * children; ++i) body.varint(0);
    return body.text;
  };
  const std::size_t size = orbax::block(orbax::BlockKind::node, inner(1, 1, 0, 50)).size();
  CHECK_THAT(refusal_of_root(inner(1, 1, 0, size), 1), contains_text("is a node of height 1, expected 0"));
  CHECK_THAT(refusal_of_root(inner(3, 1, 0, size), 200), contains_text("is a node of height 3, expected 200"));
  CHECK_THAT(refusal_of_root(Body().varint(1).file("d/x").varint(0).text, 1), contains_text("has no children"));
  CHECK_THAT(refusal_of_root(Body().varint(1).file("d/x").varints({1, 1, 2}).bytes("k").text, 1),
             contains_text("the keys below 'k' share 2 bytes, more than it has"));

  // Each level has a hundred children, all the same node below: a hundred to the power of twenty nodes.
  const test::TemporaryFolder folder;
  std::string file = orbax::block(orbax::BlockKind::node, Body().varint(0).file("d/x").varint(0).text);
  std::uint64_t last = 0, last_size = file.size();
  for (int height = 1; height <= 20; ++height) {
    const std::string node = orbax::block(orbax::BlockKind::node, inner(height, 100, last, last_size));
    last = file.size();
    last_size = node.size();
    file += node;
  }
  test::write_all(folder.path() / "d/x", file);
  std::string body = orbax::manifest_body(std::string(16, 'i'), "d/x", {0, last, last_size}, {}, 0);
  const std::size_t after = Body().varints({0, last, last_size, 0, last_size, 0}).text.size() + 8 + 1;
  body[body.size() - after - 1] = 20;
  test::write_all(folder.path() / "manifest.ocdbt", orbax::block(orbax::BlockKind::manifest, body));
  CHECK_THAT(refusal(folder.path()), contains_text("the keys and nodes take more than the 268435456 bytes allowed"));

  // A few bytes that stand for many long keys, of which each shares all but one with the one before.
  Body many = Body().varint(0).file("d/x").varint(200'000);
  for (int i = 1; i < 200'000; ++i) many.varint(4000);
  many.varint(4000);
  for (int i = 1; i < 200'000; ++i) many.varint(1);
  many.bytes(std::string(4000, 'k') + std::string(200'000, 'l'));
  CHECK_THAT(refusal_of_root(many.text),
             contains_text("the keys and nodes take more than the 268435456 bytes allowed"));
}

TEST_CASE("a node that decodes to more than nodes have is refused", "[orbax][hostile]") {
  const test::TemporaryFolder folder;
  const std::vector<char> zeros(100'000'000);
  std::string packed(ZSTD_compressBound(zeros.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), zeros.data(), zeros.size(), 1));
  std::string node = orbax::block(orbax::BlockKind::node, packed);
  node.resize(node.size() - 4);
  node[13] = 1;  // zstd
  const std::uint32_t sum = orbax::crc32c(std::as_bytes(std::span(node)));
  node.append(reinterpret_cast<const char*>(&sum), sizeof sum);
  test::write_all(folder.path() / "d/x", node);
  test::write_all(folder.path() / "manifest.ocdbt", manifest(node.size()));
  CHECK_THAT(refusal(folder.path()), contains_text("decodes to more than the 16842752 bytes allowed"));
}

TEST_CASE("zarr 2 that is not what orbax writes is refused by name", "[orbax][hostile]") {
  const test::TemporaryFolder folder;
  write_store(folder.path(), orbax::Form::folders);
  REQUIRE(refusal(folder.path()) == "accepted");
  fs::rename(folder.path() / "params.b.value", folder.path() / "b\xff");
  CHECK_THAT(refusal(folder.path()), contains_text("the name of an array's folder is not printable ASCII"));
  fs::rename(folder.path() / "b\xff", folder.path() / "params.b.value");
  const fs::path file = folder.path() / "params.b.value/.zarray";
  const Json good = Json::parse(test::read_all(file));
  const auto said_with = [&](const std::string& key, const Json& value) {
    Json bad = good;
    bad[key] = value;
    test::write_all(file, bad.dump());
    const std::string said = refusal(folder.path());
    CHECK_THAT(said, contains_text("'params.b.value"));
    return said;
  };
  CHECK_THAT(said_with("order", "F"), contains_text("'order' is \"F\", expected \"C\""));
  CHECK_THAT(said_with("dtype", "<f8"), contains_text("'dtype' is \"<f8\", expected <f4, bfloat16 or <f2"));
  CHECK_THAT(said_with("dtype", ">f4"), contains_text("'dtype' is \">f4\""));
  CHECK_THAT(said_with("zarr_format", 3), contains_text("'zarr_format' is 3, expected 2"));
  CHECK_THAT(said_with("filters", Json::array({{{"id", "delta"}}})), contains_text("'filters' is"));
  CHECK_THAT(said_with("compressor", {{"id", "blosc"}}), contains_text("'id' is \"blosc\", expected \"zstd\""));
  CHECK_THAT(said_with("dimension_separator", ":"), contains_text("expected \".\" or \"/\""));
  CHECK_THAT(said_with("shape", {4, -8}), contains_text("'shape' is [4,-8], expected"));
  CHECK_THAT(said_with("shape", {4, 0}), contains_text("'shape' is [4,0], expected"));
  CHECK_THAT(said_with("shape", "4"), contains_text("'shape' is \"4\", expected"));
  CHECK_THAT(said_with("shape", {std::int64_t{1} << 40, 1 << 20}), contains_text("less than 2^46 bytes in all"));
  CHECK_THAT(said_with("shape", std::vector<int>(9, 1)), contains_text("at most 8 positive integers"));
  CHECK_THAT(said_with("chunks", {4}), contains_text("expected a positive integer for each of the array's 2 axes"));
  CHECK_THAT(said_with("chunks", {5, 8}), contains_text("'chunks' is [5,8], expected no more than [4, 8]"));
  CHECK_THAT(said_with("surprise", 1), contains_text("unknown key 'surprise'"));
  CHECK_THAT(said_with("chunks", {2, 8}), contains_text("0.0': decodes to more than the 64 bytes expected"));
  CHECK_THAT(said_with("shape", {4, 9}), contains_text("chunk [0, 1] is missing"));
  CHECK_THAT(said_with("compressor", nullptr), contains_text("0.0': has") && contains_text("expected 128"));
  Json wide = good;
  wide["shape"] = {4, 5000};
  wide["chunks"] = {4, 1};
  test::write_all(file, wide.dump());
  CHECK_THAT(refusal(folder.path()), contains_text("expected at most 4096 side by side"));
  test::write_all(file, "{\"shape\": ");
  CHECK_THAT(refusal(folder.path()), contains_text(".zarray': is not valid JSON"));
  test::write_all(file, std::string(2 << 20, ' '));
  CHECK_THAT(refusal(folder.path()), contains_text(".zarray': has 2097152 bytes, expected at most 1048576"));
  test::write_all(file, good.dump());
  test::write_all(folder.path() / "params.b.value/zarr.json", "{}");
  CHECK_THAT(refusal(folder.path()), contains_text("'zarr_format' is missing"));
}

TEST_CASE("chunks that are damaged, too short or too long are refused", "[orbax][hostile]") {
  const test::TemporaryFolder folder;
  write_store(folder.path(), orbax::Form::folders);
  const fs::path file = folder.path() / "params.b.value/0.0";
  const std::string good = test::read_all(file);
  const auto said_of = [&](const std::string& content) {
    test::write_all(file, content);
    const std::string said = refusal(folder.path());
    CHECK_THAT(said, contains_text(file.string() + ": 'params.b.value/0.0'"));
    return said;
  };
  const auto packed = [](std::size_t bytes) {
    std::string result(1000, '\0');
    const std::string values(bytes, 'v');
    result.resize(ZSTD_compress(result.data(), result.size(), values.data(), values.size(), 1));
    return result;
  };
  for (std::size_t i = 0; i < good.size(); ++i) {
    CHECK_THAT(said_of(good.substr(0, i)), contains_text("and is cut off there, expected 128") ||
                                               contains_text("its zstd frame is cut off") ||
                                               contains_text("decodes to 0, expected 128"));
  }
  CHECK_THAT(said_of(packed(100)), contains_text("decodes to 100, expected 128 bytes"));
  CHECK_THAT(said_of(packed(129)), contains_text("decodes to more than the 128 bytes expected"));
  CHECK_THAT(said_of(good + "more"), contains_text("cannot be decoded as zstd"));
  CHECK_THAT(said_of(good + good), contains_text("decodes to more than the 128 bytes expected"));
  CHECK_THAT(said_of("junk that is no zstd"), contains_text("cannot be decoded as zstd: Unknown frame descriptor"));
  fs::remove(file);
  CHECK_THAT(refusal(folder.path()),
             contains_text("array 'params.b.value': chunk [0, 0] is missing, and its fill_value is not 0"));
  test::write_all(file, packed(60) + packed(68));  // two frames are one stream
  CHECK(refusal(folder.path()) == "accepted");
}

Json zarr3(const Json& codecs) {
  return {{"zarr_format", 3},
          {"node_type", "array"},
          {"shape", {4, 2}},
          {"data_type", "float32"},
          {"chunk_grid", {{"name", "regular"}, {"configuration", {{"chunk_shape", {4, 2}}}}}},
          {"chunk_key_encoding", {{"name", "default"}}},
          {"fill_value", 0.0},
          {"codecs", codecs}};
}

Json sharded(const Json& changes = Json::object()) {
  Json configuration = {{"chunk_shape", {2, 2}},
                        {"codecs", {{{"name", "bytes"}, {"configuration", {{"endian", "little"}}}}}},
                        {"index_codecs", {{{"name", "bytes"}}, {{"name", "crc32c"}}}}};
  configuration.update(changes);
  return zarr3({{{"name", "sharding_indexed"}, {"configuration", configuration}}});
}

TEST_CASE("zarr 3 that is not what orbax writes is refused by name", "[orbax][hostile]") {
  const test::TemporaryFolder folder;
  const auto said_of = [&](const Json& metadata) {
    test::write_all(folder.path() / "a/zarr.json", metadata.dump());
    return refusal(folder.path());
  };
  const auto said_with = [&](const std::string& key, const Json& value) {
    Json metadata = zarr3({{{"name", "bytes"}}});
    metadata[key] = value;
    return said_of(metadata);
  };
  CHECK(said_of(zarr3({{{"name", "bytes"}}})) == "accepted");  // no chunk: zeros
  CHECK_THAT(said_with("fill_value", 1), contains_text("chunk [0, 0] is missing, and its fill_value is not 0"));
  CHECK_THAT(said_with("fill_value", "NaN"), contains_text("chunk [0, 0] is missing"));
  CHECK_THAT(said_with("node_type", "group"), contains_text("'node_type' is \"group\", expected \"array\""));
  CHECK_THAT(said_with("data_type", "float64"), contains_text("expected float32, bfloat16 or float16"));
  CHECK_THAT(said_with("data_type", {{"name", "r16"}}), contains_text("'data_type' is"));
  CHECK_THAT(said_with("storage_transformers", {{{"name", "x"}}}), contains_text("'storage_transformers' is"));
  CHECK_THAT(said_with("an_extension", {{"name", "x"}}), contains_text("unknown key 'an_extension'"));
  CHECK_THAT(said_with("chunk_grid", {{"name", "rectangular"}}), contains_text("expected \"regular\""));
  CHECK_THAT(said_with("chunk_key_encoding", {{"name", "mine"}}), contains_text("expected \"default\" or \"v2\""));
  CHECK_THAT(said_with("codecs", Json::array()), contains_text("'codecs' is []"));

  CHECK_THAT(said_of(zarr3({{{"name", "bytes"}, {"configuration", {{"endian", "big"}}}}})),
             contains_text("'endian' is \"big\", expected \"little\""));
  CHECK_THAT(said_of(zarr3({{{"name", "bytes"}}, {{"name", "gzip"}, {"configuration", {{"level", 5}}}}})),
             contains_text("'name' is \"gzip\", expected bytes, zstd or crc32c"));
  CHECK_THAT(said_of(zarr3({{{"name", "transpose"}}, {{"name", "bytes"}}})), contains_text("\"transpose\""));
  CHECK_THAT(said_of(zarr3({{{"name", "bytes"}}, {{"name", "crc32c"}}, {{"name", "zstd"}}})),
             contains_text("'codecs' are bytes, crc32c, zstd in turn, expected bytes, zstd, crc32c"));
  CHECK_THAT(said_of(zarr3({{{"name", "zstd"}}})), contains_text("'codecs' are zstd in turn, expected bytes, zstd"));

  CHECK_THAT(said_of(sharded({{"chunk_shape", {3, 2}}})),
             contains_text("sizes that divide those of the shard, [4, 2]"));
  CHECK_THAT(said_of(sharded({{"index_location", "middle"}})), contains_text("expected \"start\" or \"end\""));
  CHECK_THAT(said_of(sharded({{"index_codecs", {{{"name", "bytes"}}, {{"name", "zstd"}}}}})),
             contains_text("'index_codecs' hold zstd"));
  CHECK_THAT(said_of(sharded({{"codecs", {{{"name", "sharding_indexed"}}}}})), contains_text("\"sharding_indexed\""));
  Json twice = sharded();
  twice["codecs"].push_back({{"name", "crc32c"}});
  CHECK_THAT(said_of(twice), contains_text("'codecs' go on after sharding_indexed"));
}

TEST_CASE("shards whose index or checksum is wrong are refused", "[orbax][hostile]") {
  const test::TemporaryFolder folder;
  test::write_all(folder.path() / "a/zarr.json", sharded().dump());
  const auto shard = [](std::uint64_t offset, std::uint64_t size) {
    const std::uint64_t index[] = {0, 16, offset, size};
    std::string entries(reinterpret_cast<const char*>(index), sizeof index);
    const std::uint32_t sum = orbax::crc32c(std::as_bytes(std::span(entries)));
    return std::string(32, '\0') + entries + std::string(reinterpret_cast<const char*>(&sum), sizeof sum);
  };
  const auto said_of = [&](const std::string& content) {
    test::write_all(folder.path() / "a/c/0/0", content);
    return refusal(folder.path());
  };
  CHECK(said_of(shard(16, 16)) == "accepted");
  CHECK(said_of(shard(~std::uint64_t{0}, ~std::uint64_t{0})) == "accepted");  // zeros
  CHECK_THAT(said_of(shard(16, 15)), contains_text("has 15 bytes, expected 16"));
  CHECK_THAT(said_of(shard(60, 16)), contains_text("has 68 bytes, but a part of it is 16 bytes at byte 60"));
  CHECK_THAT(said_of(shard(~std::uint64_t{0}, 16)), contains_text("but a part of it is 16 bytes"));
  std::string flipped = shard(16, 16);
  flipped[40] ^= 1;
  CHECK_THAT(said_of(flipped), contains_text("does not have the CRC-32C that it ends with"));
  CHECK_THAT(said_of("short"), contains_text("has 5 bytes, too few for the index of 2 chunks"));

  test::write_all(folder.path() / "a/zarr.json", zarr3({{{"name", "bytes"}}, {{"name", "crc32c"}}}).dump());
  CHECK_THAT(said_of(std::string(36, 'x')), contains_text("does not have the CRC-32C that it ends with"));
  CHECK_THAT(said_of("xyz"), contains_text("has 3 bytes, too few for its checksum"));
}

}  // namespace
}  // namespace pi0
