#include "protocol/msgpack_numpy.h"

#include <cstdint>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.h"

using namespace pi0::protocol;
using Catch::Contains;
using Octets = std::vector<std::uint8_t>;

namespace {

Octets from_hex(std::string_view hex) {
  Octets bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::uint8_t>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

std::string to_hex(const Octets& bytes) {
  std::string hex;
  for (const std::uint8_t byte : bytes) {
    for (const int digit : {byte >> 4, byte & 15}) hex += "0123456789abcdef"[digit];
  }
  return hex;
}

Dict one(Value value) {
  Dict dict;
  dict.set("k", std::move(value));
  return dict;
}

// The encoded value of {"k": value}, without the map around it.
std::string hex_of(Value value) { return to_hex(encode(one(std::move(value)))).substr(6); }

// A message {"k": <bytes>}.
Octets message_with(std::string_view hex) { return from_hex("81a16b" + std::string(hex)); }
Value decoded(std::string_view hex) { return *decode(message_with(hex)).find("k"); }

std::string hex_text(std::string_view text) {  // as str8
  Octets bytes{0xd9, static_cast<std::uint8_t>(text.size())};
  bytes.insert(bytes.end(), text.begin(), text.end());
  return to_hex(bytes);
}

// The wire form of an array; the parts are hex of msgpack values.
std::string array_hex(const std::string& data, const std::string& dtype, const std::string& shape) {
  return "84c40b5f5f6e6461727261795f5fc3c40464617461" + data + "c4056474797065" + dtype + "c4057368617065" + shape;
}
std::string scalar_hex(const std::string& data, std::string_view dtype) {
  return "83c40d5f5f6e7067656e657269635f5fc3c40464617461" + data + "c4056474797065" + hex_text(dtype);
}

Octets read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <typename T>
T element(const Value& value, std::size_t index = 0) {
  T result;
  std::memcpy(&result, std::get<NdArray>(value).data.data() + index * sizeof(T), sizeof(T));
  return result;
}

}  // namespace

// The expected bytes in this file were packed by Python's msgpack with openpi's msgpack_numpy.
TEST_CASE("integers are packed in the shortest form", "[msgpack]") {
  const auto [value, hex] = GENERATE(table<Value, std::string>({
      {0, "00"},
      {127, "7f"},
      {128, "cc80"},
      {255, "ccff"},
      {256, "cd0100"},
      {65535, "cdffff"},
      {65536, "ce00010000"},
      {std::int64_t{4294967295}, "ceffffffff"},
      {std::int64_t{4294967296}, "cf0000000100000000"},
      {std::numeric_limits<std::int64_t>::max(), "cf7fffffffffffffff"},
      {std::uint64_t{1} << 63, "cf8000000000000000"},
      {std::numeric_limits<std::uint64_t>::max(), "cfffffffffffffffff"},
      {-1, "ff"},
      {-32, "e0"},
      {-33, "d0df"},
      {-128, "d080"},
      {-129, "d1ff7f"},
      {-32768, "d18000"},
      {-32769, "d2ffff7fff"},
      {std::numeric_limits<std::int32_t>::min(), "d280000000"},
      {std::int64_t{-2147483649}, "d3ffffffff7fffffff"},
      {std::numeric_limits<std::int64_t>::min(), "d38000000000000000"},
  }));
  CHECK(hex_of(value) == hex);
  CHECK(decoded(hex).index() == value.index());
  CHECK(hex_of(decoded(hex)) == hex);
}

TEST_CASE("lengths are packed in the shortest form", "[msgpack]") {
  const auto head = [](const Value& value, std::size_t digits) { return hex_of(value).substr(0, digits); };
  CHECK(head(std::string(31, 'x'), 4) == "bf78");
  CHECK(head(std::string(32, 'x'), 6) == "d92078");
  CHECK(head(std::string(255, 'x'), 6) == "d9ff78");
  CHECK(head(std::string(256, 'x'), 8) == "da010078");
  CHECK(head(std::string(65536, 'x'), 12) == "db0001000078");
  CHECK(head(Bytes{}, 4) == "c400");
  CHECK(head(Bytes{Octets(255, 'x')}, 6) == "c4ff78");
  CHECK(head(Bytes{Octets(256, 'x')}, 8) == "c5010078");
  CHECK(head(Bytes{Octets(65536, 'x')}, 12) == "c60001000078");
  CHECK(head(List{std::vector<Value>(15, 0)}, 4) == "9f00");
  CHECK(head(List{std::vector<Value>(16, 0)}, 8) == "dc001000");
  CHECK(head(List{std::vector<Value>(65536, 0)}, 12) == "dd0001000000");
  for (const auto& [size, hex] : std::vector<std::pair<std::size_t, std::string>>{{1, "d40578"},
                                                                                  {2, "d50578"},
                                                                                  {3, "c7030578"},
                                                                                  {4, "d60578"},
                                                                                  {8, "d70578"},
                                                                                  {16, "d80578"},
                                                                                  {17, "c7110578"},
                                                                                  {256, "c801000578"},
                                                                                  {65536, "c9000100000578"}}) {
    CHECK(head(Extension{5, Octets(size, 'x')}, hex.size()) == hex);
  }
  Dict dict;
  for (int i = 0; i < 16; ++i) dict.set(std::to_string(i), 0);
  CHECK(to_hex(encode(dict)).substr(0, 8) == "de0010a1");
}

TEST_CASE("what Python packs is packed to the same bytes again", "[msgpack]") {
  const std::string hex =
      GENERATE(as<std::string>{},
               // every plain type; empty map, extensions, a timestamp
               "8ba16ec0a174c3a166c2a164cb3ff8000000000000a173a2c3a9a162c4026162a16c9201a178a16d80a165c703"
               "2a616263a26532d60161626364a27432d7ff000000146553f100",
               // int16 [1, 3], float64 [], float32 [0, 3], U3 [2], S2 [1], bool [2]
               "86a16184c40b5f5f6e6461727261795f5fc3c40464617461c406010002000300c4056474797065a33c6932c405"
               "7368617065920103a17a84c40b5f5f6e6461727261795f5fc3c40464617461c408000000000000e03fc4056474"
               "797065a33c6638c405736861706590a16584c40b5f5f6e6461727261795f5fc3c40464617461c400c405647479"
               "7065a33c6634c4057368617065920003a17384c40b5f5f6e6461727261795f5fc3c40464617461c41861000000"
               "6200000000000000630000006400000065000000c4056474797065a33c5533c40573686170659102a17984c40b"
               "5f5f6e6461727261795f5fc3c40464617461c4027879c4056474797065a37c5332c40573686170659101a16284"
               "c40b5f5f6e6461727261795f5fc3c40464617461c4020100c4056474797065a37c6231c40573686170659102",
               // an array inside a map
               "81a16981a16384c40b5f5f6e6461727261795f5fc3c40464617461c40107c4056474797065a37c7531c4057368"
               "6170659101");
  CHECK(to_hex(encode(decode(from_hex(hex)))) == hex);
}

TEST_CASE("openpi's requests and answers are packed to the same bytes again", "[msgpack][golden]") {
  const std::string folder = "goldens/policies/";
  for (const char* file :
       {"pi05_droid/request.msgpack", "pi05_droid/response.msgpack", "pi05_droid_jointpos_polaris/request.msgpack",
        "pi05_droid_jointpos_polaris/response.msgpack"}) {
    const Octets bytes = read_file(folder + file);
    CHECK(encode(decode(bytes)) == bytes);
  }
  const Dict request = decode(read_file(folder + "pi05_droid/request.msgpack"));
  CHECK(type_name(*request.find("observation/exterior_image_1_left")) == "uint8 array [224, 224, 3]");
  CHECK(type_name(*request.find("observation/joint_position")) == "float64 array [7]");
}

TEST_CASE("floats are packed as float64, whole numbers too", "[msgpack]") {
  CHECK(hex_of(1.5) == "cb3ff8000000000000");
  CHECK(hex_of(2.0) == "cb4000000000000000");
  CHECK(hex_of(0.0) == "cb0000000000000000");
  CHECK(hex_of(-0.0) == "cb8000000000000000");
  CHECK(hex_of(-3.0) == "cbc008000000000000");
  CHECK(hex_of(std::numeric_limits<double>::infinity()) == "cb7ff0000000000000");
}

TEST_CASE("float32 is read as double", "[msgpack]") { CHECK(std::get<double>(decoded("ca3f000000")) == 0.5); }

TEST_CASE("NumPy scalars become arrays of no axes", "[numpy]") {
  CHECK(type_name(decoded(scalar_hex("cb3fd0000000000000", "<f4"))) == "float32 array []");
  CHECK(element<float>(decoded(scalar_hex("cb3fd0000000000000", "<f4"))) == 0.25F);
  CHECK(element<double>(decoded(scalar_hex("cb3fd0000000000000", ">f8"))) == 0.25);
  CHECK(element<float>(decoded(scalar_hex("03", "<f4"))) == 3.0F);
  CHECK(element<std::int16_t>(decoded(scalar_hex("fd", "<i2"))) == -3);
  CHECK(element<std::uint64_t>(decoded(scalar_hex("cfffffffffffffffff", "<u8"))) == ~0ULL);
  CHECK(element<std::uint8_t>(decoded(scalar_hex("c3", "|b1"))) == 1);
  CHECK_THROWS_WITH(decoded(scalar_hex("cd0100", "|u1")),
                    "'k': a uint8 scalar whose data is int, expected a number of that type");
  CHECK_THROWS_AS(decoded(scalar_hex("ff", "|u1")), ProtocolError);
  CHECK_THROWS_AS(decoded(scalar_hex("cb3fd0000000000000", "<i4")), ProtocolError);
  CHECK_THROWS_AS(decoded(scalar_hex("c0", "<f8")), ProtocolError);
  CHECK_THROWS_AS(decoded(scalar_hex("a178", "<U1")), ProtocolError);
  CHECK_THROWS_AS(decoded(scalar_hex("01", "|O")), ProtocolError);
  CHECK_THROWS_WITH(decoded("82c40d5f5f6e7067656e657269635f5fc3c4056474797065a33c6634"),
                    "'k': the scalar's data is missing, expected a number");
}

TEST_CASE("float16 scalars are rounded as NumPy rounds them", "[numpy]") {
  const auto [value, bits] = GENERATE(table<double, int>({
      {0.1, 0x2E66},
      {1.0 / 3, 0x3555},
      {-0.0, 0x8000},
      {2049.0, 0x6800},
      {2051.0, 0x6802},
      {65504.0, 0x7BFF},
      {65519.9, 0x7BFF},
      {65520.0, 0x7C00},
      {6.1e-5, 0x03FF},
      {5.96e-8, 0x0001},
      {2.98e-8, 0x0000},
      {std::numeric_limits<double>::infinity(), 0x7C00},
      {std::numeric_limits<double>::quiet_NaN(), 0x7E00},
  }));
  CHECK(element<std::uint16_t>(decoded(scalar_hex(hex_of(value), "<f2"))) == bits);
}

TEST_CASE("big-endian arrays are converted", "[numpy]") {
  const Value floats = decoded(
      "84c40b5f5f6e6461727261795f5fc3c40464617461c4083fc00000c0000000c4056474797065a33e6634c40573"
      "686170659102");
  CHECK(element<float>(floats, 0) == 1.5F);
  CHECK(element<float>(floats, 1) == -2.0F);
  const Value text = decoded(
      "84c40b5f5f6e6461727261795f5fc3c40464617461c4080000006100000062c4056474797065a33e5532c40573"
      "686170659101");
  CHECK(element<char32_t>(text, 0) == U'a');
  CHECK(element<char32_t>(text, 1) == U'b');
}

TEST_CASE("spellings of a dtype", "[numpy]") {
  const auto accepted = [](std::string_view dtype, std::size_t bytes) {
    Octets data{0xc4, static_cast<std::uint8_t>(bytes)};
    data.resize(2 + bytes);
    return type_name(decoded(array_hex(to_hex(data), hex_text(dtype), "9101")));
  };
  CHECK(accepted("<f8", 8) == "float64 array [1]");
  CHECK(accepted("=f4", 4) == "float32 array [1]");
  CHECK(accepted("f2", 2) == "float16 array [1]");
  CHECK(accepted("<u1", 1) == "uint8 array [1]");
  CHECK(accepted("|b1", 1) == "bool array [1]");
  CHECK(accepted(">i8", 8) == "int64 array [1]");
  CHECK(accepted("<U12", 48) == "U12 array [1]");
  CHECK(accepted("|S5", 5) == "S5 array [1]");
  CHECK(accepted("float32", 4) == "float32 array [1]");
  CHECK(accepted("bool", 1) == "bool array [1]");
  CHECK(type_name(decoded(array_hex("c40400000000", "c4033c6634", "9101"))) == "float32 array [1]");  // as bin
  for (const char* dtype :
       {"",    "<",     "<f",      "<f3", "<f16",    "<f08", "<f+8",  "<f8 ", "< f8", "|f8",  "<<f8",
        "zzz", "|O",    "|V8",     "<c8", "<M8[ns]", "<m8",  "f4,f4", "<U0",  "<U",   "<U-1", "<U99999999999",
        "<b4", "float", "<float32"}) {
    CAPTURE(dtype);
    CHECK_THROWS_WITH(accepted(dtype, 8), Contains("'k': dtype '" + std::string(dtype) + "'"));
  }
  CHECK_THROWS_WITH(accepted("<" + std::string(200, 'f'), 8), Contains(std::string(79, 'f') + "...'"));
  CHECK_THROWS_WITH(decoded(array_hex("c400", "80", "90")), "'k': the array's dtype is map, expected str");
}

TEST_CASE("an array whose parts do not match is refused", "[numpy]") {
  const std::string f8 = "a33c6638";
  const std::string eight_bytes = "c4080000000000000000";
  CHECK_THROWS_WITH(decoded(array_hex(eight_bytes, f8, "9102")),
                    "'k': 8 bytes of data, expected 16 for a float64 array [2]");
  CHECK_THROWS_AS(decoded(array_hex(eight_bytes, f8, "9100")), ProtocolError);  // too many
  CHECK_THROWS_WITH(decoded(array_hex(eight_bytes, f8, "91ff")),
                    "'k': a shape that no array can have: float64 array [-1]");
  const std::string huge = "cf4000000000000000";  // 2^62
  CHECK_THROWS_AS(decoded(array_hex("c400", f8, "92" + huge + huge)), ProtocolError);
  CHECK_THROWS_AS(decoded(array_hex("c400", f8, "92" + huge + "00")), ProtocolError);
  CHECK_THROWS_AS(decoded(array_hex("c400", f8, "91cfffffffffffffffff")), ProtocolError);
  CHECK_THROWS_AS(decoded(array_hex(eight_bytes, f8, "91c3")), ProtocolError);
  CHECK_THROWS_AS(decoded(array_hex(eight_bytes, f8, "01")), ProtocolError);
  CHECK_THROWS_AS(decoded(array_hex("a85858585858585858", f8, "9101")), ProtocolError);  // str data
  CHECK_THROWS_WITH(decoded(array_hex(eight_bytes, f8, "dc0021" + std::string(66, '0'))),
                    "'k': an array of 33 axes, at most 32 are allowed");
  CHECK_THROWS_WITH(decoded("81c40b5f5f6e6461727261795f5fc3"), "'k': the array's dtype is missing, expected str");
  CHECK(type_name(decoded(array_hex("c400", f8, "920003"))) == "float64 array [0, 3]");
}

TEST_CASE("arrays and scalars may have text keys", "[numpy]") {
  // {"__ndarray__": True, "data": bytes, "dtype": "<i2", "shape": [1, 2]}
  const Value array =
      decoded("84ab5f5f6e6461727261795f5fc3a464617461c40401000200a56474797065a33c6932a57368617065920102");
  CHECK(type_name(array) == "int16 array [1, 2]");
  CHECK(element<std::int16_t>(array, 1) == 2);
  const Value scalar = decoded("83ad5f5f6e7067656e657269635f5fc3a464617461cb3fd0000000000000a56474797065a33c6634");
  CHECK(type_name(scalar) == "float32 array []");
  CHECK(element<float>(scalar) == 0.25F);
  CHECK_THROWS_WITH(decoded("81ab5f5f6e6461727261795f5fc3"), "'k': the array's dtype is missing, expected str");
}

TEST_CASE("what the package msgpack-numpy packs is read", "[numpy]") {
  // msgpack_numpy 0.4.8: packb(np.array([[1, 2]], '<i2')), packb(np.float32(0.25)), packb(np.bool_(True))
  const std::string array =
      "85c4026e64c3c40474797065a33c6932c4046b696e64c400c4057368617065920102c40464617461c40401000200";
  const std::string scalar = "83c4026e64c2c40474797065a33c6634c40464617461c4040000803e";
  CHECK(type_name(decoded(array)) == "int16 array [1, 2]");
  CHECK(element<std::int16_t>(decoded(array), 1) == 2);
  CHECK(type_name(decoded(scalar)) == "float32 array []");
  CHECK(element<float>(decoded(scalar)) == 0.25F);
  CHECK(type_name(decoded("83c4026e64c2c40474797065a37c6231c40464617461c40101")) == "bool array []");
  CHECK(element<float>(decoded("83c4026e64c2c40474797065a33e6634c40464617461c4043e800000")) == 0.25F);  // big-endian

  // Text keys, and the type as bin; the kind is not read.
  CHECK(element<std::int16_t>(
            decoded("85a26e64c3a474797065c4033c6932a46b696e64a169a57368617065920102a464617461c40401000200"), 1) == 2);
  CHECK(element<float>(decoded("83a26e64c2a474797065a33c6634a464617461c4040000803e")) == 0.25F);

  CHECK_THROWS_WITH(decoded("83c4026e64c2c40474797065a33c6638c40464617461c4040000803e"),
                    "'k': 4 bytes of data, expected 8 for a float64 array []");
  CHECK_THROWS_WITH(decoded("83c4026e64c3c40474797065a33c6932c40464617461c40401000200"),
                    "'k': the array's shape is missing, expected a list of sizes");
  CHECK_THROWS_WITH(decoded("83c4026e64c3c40474797065a27c4fc40464617461c40401000200"), Contains("'k': dtype '|O'"));
  CHECK_THROWS_WITH(decoded("83c4026e64c3c4047479706590c40464617461c40401000200"),
                    "'k': the array's type is list, expected str");
  // A plain map, to that package too.
  for (const char* plain : {"82a26e64c3a474797065a33c6932", "83a26e64a178a474797065a33c6932a464617461c400"}) {
    CHECK(type_name(decoded(plain)) == "map");
  }
}

TEST_CASE("entries under other binary keys are dropped", "[numpy]") {
  const Dict dict = decode(from_hex("82c4017801a17902"));
  REQUIRE(dict.entries().size() == 1);
  CHECK(std::get<std::int64_t>(*dict.find("y")) == 2);
}

TEST_CASE("of equal keys the last one counts", "[msgpack]") {
  CHECK(std::get<std::int64_t>(*decode(from_hex("82a16b01a16b02")).find("k")) == 2);
}

TEST_CASE("what is not one msgpack map is refused", "[msgpack]") {
  const auto refusal = [](std::string_view hex) {
    try {
      decode(from_hex(hex));
    } catch (const ProtocolError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  CHECK(refusal("") == "message: the bytes end in the middle of a value, at byte 0");
  CHECK(refusal("c1") == "message: byte 0 is not msgpack");
  CHECK(refusal("81a16bc1") == "'k': byte 3 is not msgpack");
  CHECK(refusal("93010203") == "message: found list, expected a map");
  CHECK(refusal("c0") == "message: found nil, expected a map");
  CHECK(refusal(array_hex("c40100", "a37c7531", "9101")) == "message: found uint8 array [1], expected a map");
  CHECK(refusal("8000") == "message: 1 bytes follow the msgpack value");
  CHECK(refusal("81a16bcb3ff8") == "'k': the bytes end in the middle of a value, at byte 4");
  CHECK(refusal("810102") == "message: a map key of type int, expected str or bin");
  CHECK(refusal("81c002") == "message: a map key of type nil, expected str or bin");
  CHECK(refusal("819002") == "message: a map key that is a list or a map, expected str or bin");
  CHECK(refusal("81a16181a162920181900290") == "'a/b[1]': a map key that is a list or a map, expected str or bin");
}

TEST_CASE("announced lengths without the bytes are refused", "[msgpack]") {
  for (const char* hex : {"ddffffffff", "dbffffffff", "c6ffffffff", "c9ffffffff", "dfffffffff",
                          "81a16bddffffffff616263", "81a16bdbffffffff616263", "81a16bc6ffffffff616263",
                          "81a16bc9ffffffff616263", "81a16bdfffffffff616263", "81a16bdd000fffff00", "81a16bde03ff"}) {
    CAPTURE(hex);
    CHECK_THROWS_AS(decode(from_hex(hex)), ProtocolError);
  }
  std::string nested;
  for (int i = 0; i < 200; ++i) nested += "dd7fffffff";
  CHECK_THROWS_AS(decode(from_hex(nested)), ProtocolError);
}

TEST_CASE("text must be UTF-8 as Python reads it", "[msgpack]") {
  for (const char* hex : {"a161", "a2c3a9", "a3e282ac", "a4f09fa496", "a4f48fbfbf", "a0"}) {
    CHECK_NOTHROW(decoded(hex));
  }
  for (const char* hex : {"a1ff", "a180", "a1c3", "a2c080", "a2c1bf", "a3e08080", "a3eda080", "a4f0808080",
                          "a4f4908080", "a4f5808080", "a2c328", "a2e282"}) {
    CAPTURE(hex);
    CHECK_THROWS_WITH(decoded(hex), "'k': a string that is not UTF-8");
  }
  CHECK_THROWS_WITH(decode(from_hex("81a1ff00")), "message: a string that is not UTF-8");
}

TEST_CASE("limits", "[msgpack]") {
  DecodeLimits limits;
  SECTION("depth") {
    limits.max_depth = 3;
    CHECK_NOTHROW(decode(message_with("81a16b9101"), limits));
    CHECK_THROWS_WITH(decode(message_with("81a16b919101"), limits), "'k/k[0]': maps and lists nested deeper than 3");
    std::string nested;  // with the map and the innermost list 1024, as deep as msgpack-python goes
    for (int i = 0; i < 1022; ++i) nested += "91";
    CHECK_NOTHROW(decode(from_hex("81a16b" + nested + "90")));
    CHECK_THROWS_AS(decode(from_hex("81a16b91" + nested + "90")), ProtocolError);
    Octets deep;
    for (int i = 0; i < 100000; ++i) deep.insert(deep.end(), {0x81, 0xa1, 'a'});
    CHECK_THROWS_AS(decode(deep), ProtocolError);
  }
  SECTION("strings") {
    limits.max_string_bytes = 3;
    CHECK_NOTHROW(decode(message_with("a3616263"), limits));
    CHECK_THROWS_WITH(decode(message_with("a461626364"), limits), "'k': a string of 4 bytes, at most 3 are allowed");
  }
  SECTION("bytes of an array") {
    limits.max_array_bytes = 3;
    CHECK_NOTHROW(decode(message_with("c403616263"), limits));
    CHECK_THROWS_WITH(decode(message_with("c40461626364"), limits), "'k': 4 bytes of data, at most 3 are allowed");
  }
  SECTION("values") {
    limits.max_values = 4;
    CHECK_NOTHROW(decode(message_with("9101"), limits));
    CHECK_THROWS_WITH(decode(message_with("93010203"), limits), "message: more than 4 values");
    CHECK_THROWS_WITH(decode(message_with("95"), limits), "'k': a list that announces 5 items, at most 4 are allowed");
  }
  SECTION("entries of a map") {
    limits.max_values = 1;
    CHECK_THROWS_WITH(decode(message_with("82"), limits), "'k': a map that announces 2 entries, at most 1 are allowed");
  }
}

TEST_CASE("fields that nobody reads are kept as bytes", "[msgpack]") {
  DecodeLimits limits;
  limits.fields = {"a", "m"};
  // {"a": 1, "b": [1, {"x": nil}], "m": {"y": 2}, "b": "last"}
  const Octets message = from_hex(
      "84a16101a162"
      "92"
      "01"
      "81a178c0"
      "a16d81a17902"
      "a162a46c617374");
  const Dict dict = decode(message, limits);
  REQUIRE(dict.entries().size() == 3);
  CHECK(std::get<std::int64_t>(*dict.find("a")) == 1);
  CHECK(std::get<std::int64_t>(*std::get<Dict>(*dict.find("m")).find("y")) == 2);
  CHECK(std::get<Packed>(*dict.find("b")).data == from_hex("a46c617374"));
  CHECK(type_name(*dict.find("b")) == "undecoded value");
  CHECK(encode(dict) == from_hex("83a16101a162a46c617374a16d81a17902"));

  for (const char* hex : {"80", "de0000", "df00000000"}) CHECK(decode(from_hex(hex), limits).entries().empty());
  CHECK_THROWS_WITH(decode(from_hex("93010203"), limits), "message: found list, expected a map");
  CHECK_THROWS_WITH(decode(from_hex("81a16101ff"), limits), "message: 1 bytes follow the msgpack value");
  CHECK_THROWS_WITH(decode(from_hex("810101"), limits), "message: a map key of type int, expected str or bin");
  CHECK_THROWS_WITH(decode(from_hex("81a16191a1ff"), limits), "'a[0]': a string that is not UTF-8");
  CHECK_THROWS_WITH(decode(from_hex("81a16291a1ff"), limits), "'b': a string that is not UTF-8");
  CHECK_THROWS_WITH(decode(from_hex("81a162c1"), limits), "'b': byte 3 is not msgpack");
  CHECK_THROWS_WITH(decode(from_hex("81a16293"), limits), "'b': the bytes end in the middle of a value, at byte 4");
  CHECK_THROWS_AS(decode(from_hex("82a16101"), limits), ProtocolError);
  CHECK_THROWS_AS(decode(from_hex("de00"), limits), ProtocolError);
  CHECK(decode(from_hex("82c40161"
                        "01"
                        "a16102"),
               limits)
            .entries()
            .size() == 1);  // a binary key is no field's

  limits.max_depth = 3;
  for (const char* key : {"61", "62"}) {
    CHECK_NOTHROW(decode(from_hex("81a1" + std::string(key) + "9190"), limits));
    CHECK_THROWS_WITH(decode(from_hex("81a1" + std::string(key) + "919190"), limits),
                      Contains("maps and lists nested deeper than 3"));
  }
}

TEST_CASE("maps of many keys are read in time that grows with their bytes", "[msgpack]") {
  Octets message{0xDF, 0x00, 0x03, 0x0D, 0x40};  // 200,000 entries
  for (int i = 0; i < 200'000; ++i) {
    const std::string key = std::to_string(1'000'000 + i);
    message.push_back(0xA7);
    message.insert(message.end(), key.begin(), key.end());
    message.push_back(0xC0);
  }
  const std::clock_t start = std::clock();  // CPU time: a busy machine does not count
  CHECK(decode(message).entries().size() == 200'000);
  DecodeLimits limits;
  limits.fields = {"1000000"};
  CHECK(decode(message, limits).entries().size() == 200'000);
  CHECK((std::clock() - start) / CLOCKS_PER_SEC < 30);  // minutes when it grows with the square
}

TEST_CASE("one value is packed as it is inside a map", "[msgpack]") {
  const Value array = NdArray{{'i', 2}, {2}, Octets{1, 0, 2, 0}};
  CHECK(to_hex(encode(array)) == hex_of(array));
}

TEST_CASE("an array of the wrong size is not written", "[numpy]") {
  CHECK_THROWS_AS(encode(one(NdArray{{'f', 8}, {2}, Octets(8)})), ProtocolError);
  CHECK_THROWS_AS(encode(one(NdArray{{'f', 3}, {1}, Octets(3)})), ProtocolError);
  CHECK_THROWS_AS(encode(one(NdArray{{'f', 8}, {-1}, Octets(8)})), ProtocolError);
}
