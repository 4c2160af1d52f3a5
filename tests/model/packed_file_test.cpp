#include "model/packed_file.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "model/backends/cpu/cpu_backend.h"
#include "model/checksum.h"
#include "model/pi0.h"
#include "model/rounding.h"
#include "support/catch.h"
#include "support/temporary_folder.h"
#include "support/tiny_model.h"

namespace pi0 {
namespace {

using model::Precision;
namespace fs = std::filesystem;

// Counts the weights that are packed when the model is loaded.
class CountingBackend : public model::CpuBackend {
 public:
  CountingBackend() : CpuBackend(model::gemm_kernels(model::instruction_sets().back())) {}
  at::Tensor pack(const at::Tensor& weight) const override {
    ++packed;
    return CpuBackend::pack(weight);
  }
  mutable int packed = 0;
};

std::shared_ptr<model::Pi0> load(const fs::path& folder, Precision precision, const model::Execution& execution) {
  model::Checkpoint checkpoint(folder);
  auto result = std::make_shared<model::Pi0>(test::read_case("tiny_pi05").config, checkpoint, precision, execution);
  checkpoint.finish();
  return result;
}

// The golden model as convert --packed writes it.
void write_golden(const fs::path& file, Precision precision, const std::vector<model::Format>& formats = {}) {
  const std::shared_ptr<model::Pi0> golden = load("goldens/tiny_pi05", Precision::float32, {});
  std::set<std::string> weights;
  for (const model::MatmulSite& site : golden->sites().all()) {
    if (dynamic_cast<const model::Linear*>(&site) != nullptr) weights.insert(site.path + ".weight");
  }
  std::vector<model::SafetensorsPart> parts;
  for (const auto& parameter : golden->named_parameters()) {
    const at::Tensor stored = parameter.value().to(model::storage_of(parameter.key(), precision).rounding);
    parts.push_back({parameter.key(), stored.scalar_type(), stored.sizes().vec(), [stored] { return stored; }});
  }
  std::ofstream stream(file, std::ios::binary | std::ios::trunc);
  model::write_packed(
      [&](const void* data, std::size_t size) {
        stream.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
      },
      parts, weights, formats);
}

void check_same(const model::Pi0& found, const model::Pi0& expected) {
  for (const auto& [a, b] : {std::pair(found.named_parameters(), expected.named_parameters()),
                             std::pair(found.named_buffers(), expected.named_buffers())}) {
    REQUIRE(a.keys() == b.keys());
    for (const std::string& name : a.keys()) {
      INFO(name);
      CHECK(a[name].scalar_type() == b[name].scalar_type());
      CHECK(at::equal(a[name], b[name]));
    }
  }
}

TEST_CASE("a packed file loads the parameters of its source, without packing", "[packed]") {
  for (const Precision stored : {Precision::bfloat16, Precision::float32}) {
    const test::TemporaryFolder folder;
    write_golden(folder.path() / "model.safetensors", stored);
    for (const Precision precision : {Precision::bfloat16, Precision::float32}) {
      if (stored == Precision::bfloat16 && precision == Precision::float32) continue;  // other values
      INFO("stored " << static_cast<int>(stored) << ", served " << static_cast<int>(precision));
      const auto expected = std::make_shared<CountingBackend>(), found = std::make_shared<CountingBackend>();
      const auto source = load("goldens/tiny_pi05", precision, {.backend = expected});
      const auto packed = load(folder.path(), precision, {.backend = found});  // which outlives its Checkpoint
      CHECK(expected->packed > 0);
      CHECK(found->packed == 0);
      check_same(*packed, *source);
      check_same(*load(folder.path(), precision, {}), *load("goldens/tiny_pi05", precision, {}));
    }
  }
}

TEST_CASE("codes of a packed file are those that a weight is rounded to", "[packed]") {
  using formats::Format;
  const model::RoundingKernels& kernels = model::best_rounding_kernels();
  const test::TemporaryFolder folder;
  for (const Precision stored : {Precision::bfloat16, Precision::float32}) {
    write_golden(folder.path() / "model.safetensors", stored, {Format::float8_e4m3, Format::float16});
    for (const Precision precision : {Precision::bfloat16, Precision::float32}) {
      const auto packed = load(folder.path(), precision, test::fast(model::InstructionSet::portable));
      for (const model::MatmulSite& site : packed->sites().all()) {
        const auto* const linear = dynamic_cast<const model::Linear*>(&site);
        if (linear == nullptr) continue;
        INFO(site.path);
        CHECK_FALSE(linear->stored_codes(Format::float8_e5m2).defined());
        const bool is_rounded = model::storage_of(site.path + ".weight", precision).rounding == at::kBFloat16;
        for (const Format format : {Format::float8_e4m3, Format::float16}) {
          const at::Tensor codes = linear->stored_codes(format);
          // float32 that is rounded to bfloat16 first has other codes.
          if (stored == Precision::float32 && is_rounded) {
            CHECK_FALSE(codes.defined());
            continue;
          }
          const at::Tensor expected = round_to_codes(kernels, packed_weight_of(*linear), format).weight.panels;
          REQUIRE(codes.scalar_type() == expected.scalar_type());
          CHECK(at::equal(codes.view(at::kByte), expected.view(at::kByte)));
        }
      }
    }
  }
}

TEST_CASE("panels begin at cache lines, and those of bfloat16 stay in the file's map", "[packed]") {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "model.safetensors";
  write_golden(file, Precision::bfloat16);
  const model::PackedFile packed{model::SafetensorsFile(file)};
  const model::SafetensorsFile& written = packed.file();
  const auto* const tensors = packed.tensors();
  REQUIRE(tensors != nullptr);
  const std::string name = "paligemma_with_expert.gemma_expert.model.layers.0.self_attn.q_proj.";
  model::Checkpoint checkpoint(folder.path());
  const model::Storage storage{at::kBFloat16, at::kBFloat16};
  const at::Tensor panels =
      checkpoint.lend_panels(name + "weight", tensors->at(name + "packed_weight").shape, storage).exact;
  CHECK(at::equal(panels, written.tensor(name + "packed_weight")));
  for (const auto& [each, tensor] : *tensors) {
    if (tensor.kind == model::PackedTensor::Kind::panels) CHECK(written.entry(each).begin % 64 == 0);
  }
  std::ifstream maps("/proc/self/maps");
  std::string line;
  const auto address = reinterpret_cast<std::uintptr_t>(panels.const_data_ptr());
  bool is_mapped = false;
  while (std::getline(maps, line)) {
    const auto begin = std::stoull(line, nullptr, 16), end = std::stoull(line.substr(line.find('-') + 1), nullptr, 16);
    if (begin <= address && address < end) is_mapped = line.ends_with(file.string());
  }
  CHECK(is_mapped);
}

TEST_CASE("packed files that are damaged or of another layout are refused", "[packed]") {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "model.safetensors";
  write_golden(file, Precision::bfloat16);
  const std::string sound = test::read_all(file);
  const auto refusal = [&](const std::string& content) -> std::string {
    test::write_all(file, content);
    try {
      load(folder.path(), Precision::bfloat16, {});
    } catch (const model::CheckpointError& error) {
      CHECK_THAT(error.what(), contains_text(file.string()));
      return error.what();
    }
    return "accepted";
  };
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string content = sound;
    const std::size_t at = content.find(from);
    REQUIRE(at != std::string::npos);
    return content.replace(at, from.size(), to);
  };
  REQUIRE(refusal(sound) == "accepted");
  const auto begin_of = [&](const std::string& name) {
    test::write_all(file, sound);
    return model::SafetensorsFile(file).entry(name).begin;
  };
  for (const char* name : {"action_out_proj.packed_weight", "action_out_proj.bias", model::checksums_name}) {
    std::string content = sound;
    content[begin_of(name)] ^= 1;
    CHECK_THAT(refusal(content), contains_text("is damaged") && contains_text("pi0 convert --packed"));
  }
  const std::string layout = R"(\"layout\":1)";
  CHECK_THAT(refusal(replaced(layout, R"(\"layout\":2)")), contains_text("layout 2, this program's have 1"));
  CHECK_THAT(refusal(replaced(layout, R"(\"layouT\":1)")), contains_text("layout"));
  CHECK_THAT(refusal(replaced(R"(\"action_out_proj.packed_weight\":{\"out\":32)",
                              R"(\"action_out_proj.packed_weight\":{\"out\":65)")),
             contains_text("'action_out_proj.packed_weight' is no weight [65, "));
  CHECK_THAT(refusal(replaced("pi0_packed.checksums", "pi0_packed.checksumz")), contains_text("does not end with"));
  CHECK_THAT(refusal(sound.substr(0, sound.size() - 8)), contains_text("truncated"));
}

TEST_CASE("a checksum changes with every byte and not with the threads", "[packed]") {
  const std::int64_t threads = at::get_num_threads();
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{1}, std::size_t{63}, std::size_t{1000}, std::size_t{9'000'001}}) {
    std::vector<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
    at::set_num_threads(1);
    const std::uint64_t sum = model::checksum(bytes);
    at::set_num_threads(3);
    CHECK(model::checksum(bytes) == sum);
    for (const std::size_t at : {std::size_t{0}, size / 2, size - 1}) {
      if (size == 0) break;
      for (const int bit : {0, 7}) {
        bytes[at] ^= static_cast<std::byte>(1 << bit);
        CHECK(model::checksum(bytes) != sum);
        bytes[at] ^= static_cast<std::byte>(1 << bit);
      }
    }
    bytes.push_back(std::byte{0});
    CHECK(model::checksum(bytes) != sum);
  }
  at::set_num_threads(static_cast<int>(threads));
}

}  // namespace
}  // namespace pi0
