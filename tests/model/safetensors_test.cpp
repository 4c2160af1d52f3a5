#include "model/safetensors.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cstring>

#include "support/catch.h"
#include "support/temporary_folder.h"
#include "support/tensor_file.h"

namespace pi0 {
namespace {

using model::SafetensorsFile;

std::string file_bytes(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t size = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &size, 8);
  return bytes + header + std::string(data_bytes, '\x01');
}

std::string refusal(const std::string& bytes) {
  const test::TemporaryFolder folder;
  test::write_all(folder.path() / "bad.safetensors", bytes);
  try {
    const SafetensorsFile file(folder.path() / "bad.safetensors");
  } catch (const model::CheckpointError& error) {
    CHECK_THAT(error.what(), contains_text("bad.safetensors"));
    return error.what();
  }
  return "accepted";
}

TEST_CASE("tensors of every dtype come back as they were written", "[safetensors]") {
  const test::TemporaryFolder folder;
  std::map<std::string, at::Tensor> tensors;
  const at::Tensor values = at::randn({3, 5}) * 50;
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                           at::kChar, at::kByte, at::kBool}) {
    tensors[c10::toString(dtype)] = values.abs().to(dtype);
  }
  tensors["scalar"] = at::scalar_tensor(3.5);
  tensors["empty"] = at::empty({0, 4});
  test::write_tensors(folder.path() / "all.safetensors", tensors);
  const SafetensorsFile file(folder.path() / "all.safetensors");
  REQUIRE(file.entries().size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    CHECK(file.tensor(name).scalar_type() == tensor.scalar_type());
    CHECK(at::equal(file.tensor(name), tensor));
  }
  CHECK_THROWS_WITH(file.tensor("absent"), contains_text("absent"));
}

TEST_CASE("metadata come back as they were written", "[safetensors]") {
  const test::TemporaryFolder folder;
  const std::map<std::string, std::string> metadata{{"config", "pi05_droid"}, {"percentiles", "[99,99.9]"}};
  test::write_tensors(folder.path() / "f.safetensors", {{"a", at::ones({3})}}, metadata);
  CHECK(SafetensorsFile(folder.path() / "f.safetensors").metadata() == metadata);
  test::write_tensors(folder.path() / "g.safetensors", {{"a", at::ones({3})}});
  CHECK(SafetensorsFile(folder.path() / "g.safetensors").metadata().empty());
}

TEST_CASE("copy_to rounds on the way and crosses slice borders", "[safetensors]") {
  const test::TemporaryFolder folder;
  const std::int64_t count = (std::int64_t{70} << 20) / 4;  // more than one slice
  // An odd number of bytes before it: the tensor is not aligned in the file.
  const std::map<std::string, at::Tensor> tensors{{"a", at::ones({3}, at::kByte)}, {"b", at::randn({count})}};
  test::write_tensors(folder.path() / "f.safetensors", tensors);
  const SafetensorsFile file(folder.path() / "f.safetensors");
  at::Tensor stored = at::empty({count});
  file.copy_to("b", stored, at::kBFloat16);
  CHECK(at::equal(stored, tensors.at("b").to(at::kBFloat16).to(at::kFloat)));
}

TEST_CASE("hostile and broken files are refused by file, tensor and reason", "[safetensors]") {
  const std::string good = R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  REQUIRE(refusal(file_bytes(good, 8)) == "accepted");

  CHECK_THAT(refusal(""), contains_text("0 bytes"));
  CHECK_THAT(refusal("1234567"), contains_text("7 bytes"));
  CHECK_THAT(refusal(file_bytes(good, 7)), contains_text("'t'") && contains_text("truncated"));
  CHECK_THAT(refusal(file_bytes(good, 9)), contains_text("after its last tensor"));
  CHECK_THAT(refusal(std::string(8, '\xff')), contains_text("announces a header"));
  CHECK_THAT(refusal(file_bytes(good, 8).substr(0, 30)), contains_text("announces a header"));
  CHECK_THAT(refusal(file_bytes("{not json", 0)), contains_text("not valid JSON"));
  CHECK_THAT(refusal(file_bytes("[1]", 0)), contains_text("not a JSON object"));
  CHECK_THAT(refusal(file_bytes(std::string(100000, '['), 0)), contains_text("nested more than 64 levels deep"));

  const auto entry = [](const std::string& fields) { return "{\"t\":{" + fields + "}}"; };
  const auto refused = [&](const std::string& fields, std::size_t data) {
    const std::string reason = refusal(file_bytes(entry(fields), data));
    CHECK_THAT(reason, contains_text("'t'"));
    return reason;
  };
  CHECK_THAT(refused(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])", 8), contains_text("F31"));
  CHECK_THAT(refused(R"("dtype":7,"shape":[2],"data_offsets":[0,8])", 8), contains_text("dtype"));
  const std::string many(1'000'000, '0');
  CHECK(refused("\"dtype\":\"" + many + R"(","shape":[2],"data_offsets":[0,8])", 8).size() < 1000);
  CHECK_THAT(refused(R"("shape":[2],"data_offsets":[0,8])", 8), contains_text("expected dtype"));
  CHECK_THAT(refused(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])", 8), contains_text("shape"));
  CHECK_THAT(refused(R"("dtype":"F32","shape":[2.5],"data_offsets":[0,8])", 8), contains_text("shape"));
  CHECK_THAT(refused(R"("dtype":"F32","shape":2,"data_offsets":[0,8])", 8), contains_text("list"));
  CHECK_THAT(refused(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])", 8), contains_text("begin"));
  CHECK_THAT(refused(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])", 4), contains_text("needs 8"));
  CHECK_THAT(refused(R"("dtype":"F32","shape":[2],"data_offsets":[0])", 8), contains_text("begin"));
  CHECK_THAT(refused(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])", 8),
             contains_text("overflows"));
  CHECK_THAT(refused(R"("dtype":"F32","shape":[2],"data_offsets":[8,16])", 8), contains_text("truncated"));

  const auto pair = [](const char* first, const char* second) {
    return std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)") + first +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}";
  };
  CHECK(refusal(file_bytes(pair("[4,8]", "[0,4]"), 8)) == "accepted");
  CHECK_THAT(refusal(file_bytes(pair("[0,4]", "[2,6]"), 6)), contains_text("inside the tensor before"));
  CHECK_THAT(refusal(file_bytes(pair("[0,4]", "[5,9]"), 9)), contains_text("gap"));
  CHECK_THAT(refusal(file_bytes(R"({"a":{},"a":{}})", 0)), contains_text("twice"));
  CHECK(refusal(file_bytes(R"({"__metadata__":{"format":"pt"}})", 0)) == "accepted");
  CHECK_THAT(refusal(file_bytes(R"({"__metadata__":{"steps":10}})", 0)), contains_text("expected an object of texts"));
  CHECK_THAT(refusal(file_bytes(R"({"__metadata__":"pt"})", 0)), contains_text("expected an object of texts"));
}

}  // namespace
}  // namespace pi0
