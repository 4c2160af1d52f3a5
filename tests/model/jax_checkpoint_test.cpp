#include "model/jax_checkpoint.h"

#include <algorithm>
#include <fstream>
#include <functional>

#include "model/jax_writer.h"
#include "model/pi0.h"
#include "support/catch.h"
#include "support/temporary_folder.h"
#include "support/tensors.h"
#include "support/tiny_model.h"

namespace pi0 {
namespace {

using model::Precision;
namespace fs = std::filesystem;

std::unique_ptr<model::Pi0> load(const test::GoldenCase& golden, Precision precision,
                                 model::LoadProgress progress = {}) {
  model::JaxCheckpoint checkpoint(golden.folder / "params", std::move(progress));
  auto result = std::make_unique<model::Pi0>(golden.config, checkpoint, precision, model::Execution{});
  checkpoint.finish();
  return result;
}

// What building a model of these sizes from these parameters says.
std::string refusal(const fs::path& params, const model::ModelConfig& config) {
  try {
    model::JaxCheckpoint checkpoint(params);
    const model::Pi0 pi0(config, checkpoint, Precision::float32, {});
    checkpoint.finish();
  } catch (const model::CheckpointError& error) {
    CHECK_THAT(error.what(), contains_text(params.string()));
    return error.what();
  }
  return "accepted";
}

TEST_CASE("parameters of JAX's model, with and without LoRA, give JAX's actions", "[jax][golden]") {
  for (const char* name : {"jax/pi05_tiny", "jax/pi0_lora"}) {
    const test::GoldenCase golden = test::read_case(name);
    const at::Tensor actions =
        load(golden, Precision::float32)->sample_actions(golden.inputs, golden.noise, golden.config.num_steps);
    const at::Tensor expected =
        model::SafetensorsFile(golden.folder / "expected_float32.safetensors").tensor("actions");
    INFO(name);
    REQUIRE(actions.sizes() == expected.sizes());
    CHECK(test::relative_rms(actions, expected) < 2e-5);
  }
}

TEST_CASE("a JAX checkpoint says what it holds without being read", "[jax]") {
  const model::JaxCheckpoint pi05("goldens/jax/pi05_tiny/params"), lora("goldens/jax/pi0_lora/params");
  CHECK(pi05.arrays().size() == 51);
  CHECK_FALSE(pi05.has_lora());
  CHECK(lora.arrays().size() == 70);
  CHECK(lora.has_lora());
  const orbax::ArrayInfo& gating = pi05.arrays().at("PaliGemma/llm/layers/mlp/gating_einsum");
  CHECK(gating.dtype == orbax::DType::float32);
  CHECK(gating.shape == std::vector<std::int64_t>{4, 2, 128, 256});
  std::uint64_t bytes = 0;
  for (const auto& [name, info] : lora.arrays()) bytes += info.bytes;
  CHECK(lora.total_bytes() == bytes);
}

TEST_CASE("loading a JAX checkpoint reports every byte once", "[jax]") {
  for (const char* name : {"jax/pi05_tiny", "jax/pi0_lora"}) {
    const test::GoldenCase golden = test::read_case(name);
    std::uint64_t last = 0, total = 0;
    load(golden, Precision::bfloat16, [&](std::uint64_t done, std::uint64_t all) {
      CHECK(done > last);
      last = done;
      total = all;
    });
    CHECK(last == total);
    CHECK(total == model::JaxCheckpoint(golden.folder / "params").total_bytes());
  }
}

TEST_CASE("parameters of JAX's model may be asked for in any order, and again", "[jax]") {
  model::JaxCheckpoint checkpoint("goldens/jax/pi0_lora/params");
  const model::Storage storage{at::kFloat, at::kFloat};
  const auto gate = [&](int layer) {
    return checkpoint.load("paligemma_with_expert.paligemma.model.language_model.layers." + std::to_string(layer) +
                               ".mlp.gate_proj.weight",
                           {256, 128}, storage);
  };
  std::vector<at::Tensor> forwards;
  for (int layer = 0; layer < 4; ++layer) forwards.push_back(gate(layer));
  for (int layer = 3; layer >= 0; --layer) CHECK(at::equal(gate(layer), forwards[static_cast<std::size_t>(layer)]));
  CHECK_FALSE(at::equal(forwards[0], forwards[1]));
  const auto half = checkpoint.load("action_in_proj.bias", {48}, {at::kBFloat16, at::kFloat});
  CHECK(at::equal(half, checkpoint.load("action_in_proj.bias", {48}, storage).to(at::kBFloat16).to(at::kFloat)));
}

TEST_CASE("missing, extra and misshapen arrays of JAX's model are refused by both names", "[jax]") {
  const test::GoldenCase golden = test::read_case("jax/pi05_tiny");
  const fs::path params = golden.folder / "params";
  REQUIRE(refusal(params, golden.config) == "accepted");

  model::ModelConfig config = golden.config;
  config.action_expert.mlp_dim = 97;
  CHECK_THAT(refusal(params, config),
             contains_text("array 'PaliGemma/llm/layers/mlp_1/gating_einsum' has shape [4, 2, 48, 96], expected "
                           "[layers, 2, 48, 97] for 'paligemma_with_expert.gemma_expert.model.layers.0.mlp."
                           "gate_proj.weight' of shape [97, 48]"));
  config = golden.config;
  config.paligemma.head_dim = 20;
  CHECK_THAT(refusal(params, config),
             contains_text("q_einsum/w' has shape [4, 8, 128, 16], expected [layers, n, 128, h] with n * h = 160"));
  config = golden.config;
  config.action_expert.depth = config.paligemma.depth = 5;
  CHECK_THAT(refusal(params, config), contains_text("has 4 layers, but the model needs") && contains_text("layers.4."));
  config.action_expert.depth = config.paligemma.depth = 3;
  CHECK_THAT(refusal(params, config), contains_text("has layers that the model does not have: it asked for 3"));

  config = golden.config;
  config.pi05 = false;
  CHECK_THAT(refusal(params, config),
             contains_text("array 'PaliGemma/llm/layers/pre_attention_norm_1/scale' is missing"));
  CHECK_THAT(refusal("goldens/jax/variants/ocdbt", golden.config), contains_text("is missing"));
}

// Writes files into a folder.
orbax::WriteFile files_in(const fs::path& folder) {
  return [folder](const std::string& path, const auto& content) {
    fs::create_directories((folder / path).parent_path());
    std::ofstream stream(folder / path, std::ios::binary);
    content([&](const void* data, std::size_t size) {
      stream.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
    });
  };
}

// What building the model says when arrays of its checkpoint are changed.
std::string refusal_of_changed(const test::GoldenCase& golden,
                               const std::function<void(std::map<std::string, orbax::WrittenArray>&)>& change) {
  const orbax::ArrayStore store(golden.folder / "params");
  std::map<std::string, orbax::WrittenArray> arrays;
  for (const auto& [name, layout] : store.layouts()) {
    const auto elements = [&store, name = name](const model::WriteBytes& write) {
      orbax::ArrayReader reader = store.reader(name);
      std::vector<std::byte> bytes(reader.info().bytes);
      reader.read(0, reader.rows(), bytes);
      write(bytes.data(), bytes.size());
    };
    arrays[name] = {name, layout.info.dtype, layout.info.shape, elements};
  }
  change(arrays);
  std::vector<orbax::WrittenArray> list;
  for (const auto& [name, array] : arrays) list.push_back(array);
  const test::TemporaryFolder folder;
  orbax::write_arrays(files_in(folder.path()), list, orbax::Form::ocdbt, 1);
  return refusal(folder.path(), golden.config);
}

TEST_CASE("adapters that are not a pair, do not fit or adapt nothing are refused", "[jax]") {
  const test::GoldenCase golden = test::read_case("jax/pi0_lora");
  const auto said_of = [&](const auto& change) { return refusal_of_changed(golden, change); };
  const std::string layers = "params.PaliGemma.llm.layers.";
  REQUIRE(said_of([](auto&) {}) == "accepted");
  CHECK_THAT(said_of([&](auto& arrays) { arrays.erase(layers + "mlp.linear_lora_b.value"); }),
             contains_text("array 'PaliGemma/llm/layers/mlp/linear_lora_b' is missing beside "
                           "'PaliGemma/llm/layers/mlp/linear_lora_a'"));
  CHECK_THAT(said_of([&](auto& arrays) {
               auto& shape = arrays.at(layers + "attn.q_einsum.lora_a.value").shape;
               std::swap(shape[2], shape[3]);
             }),
             contains_text("arrays 'PaliGemma/llm/layers/attn/q_einsum/lora_a' and "
                           "'PaliGemma/llm/layers/attn/q_einsum/lora_b' have shapes") &&
                 contains_text("which do not multiply to [4, 8, 128, 16] of 'PaliGemma/llm/layers/attn/q_einsum/w'"));
  const auto renamed = [&](const std::string& from, const std::string& to) {
    return said_of([&](auto& arrays) {
      orbax::WrittenArray array = arrays.at(from);
      arrays.erase(from);
      array.name = to;
      arrays[to] = array;
    });
  };
  CHECK_THAT(renamed(layers + "mlp.linear.value", layers + "mlp.other.value"), contains_text("linear' is missing"));
  CHECK_THAT(said_of([&](auto& arrays) {
               for (const char* suffix : {"a", "b"}) {
                 const std::string name = "params.action_in_proj.kernel_lora_" + std::string(suffix) + ".value";
                 arrays[name] = arrays.at("params.action_in_proj.bias.value");
                 arrays[name].name = name;
               }
             }),
             contains_text("holds 2 arrays that the model does not have: 'action_in_proj/kernel_lora_a', "
                           "'action_in_proj/kernel_lora_b'; is"));
}

TEST_CASE("what is written as JAX's parameters is read back, in every form", "[jax]") {
  const model::RandomWeights random(7);
  const auto draw = [&](const std::string& name, at::IntArrayRef shape) { return random.draw(name, shape); };
  for (const bool pi05 : {true, false}) {
    const model::ModelConfig config = model::tiny_config(pi05);
    model::ShapeRecorder recorder;
    const model::Pi0 shapes(config, recorder, Precision::float32, {});
    for (const auto dtype : {orbax::DType::float32, orbax::DType::bfloat16}) {
      for (const auto form : {orbax::Form::ocdbt, orbax::Form::folders}) {
        const test::TemporaryFolder folder;
        model::write_jax_params(files_in(folder.path()), config, draw, {dtype, form});
        model::JaxCheckpoint checkpoint(folder.path());
        CHECK(checkpoint.arrays().size() == (pi05 ? 51 : 50));
        for (const auto& [name, shape] : recorder.parameters()) {
          if (name.ends_with("lm_head.weight")) continue;
          INFO(name);
          const at::Tensor expected = random.draw(name, shape).to(model::dtype_of(dtype)).to(at::kFloat);
          REQUIRE(at::equal(checkpoint.load(name, shape, {at::kFloat, at::kFloat}), expected));
        }
        checkpoint.finish();
      }
    }
  }
}

TEST_CASE("parameters of a golden checkpoint are written as the arrays they were read from", "[jax]") {
  const test::GoldenCase golden = test::read_case("jax/pi05_tiny");
  model::JaxCheckpoint original(golden.folder / "params");
  const test::TemporaryFolder folder;
  model::write_jax_params(files_in(folder.path()), golden.config, [&](const std::string& name, at::IntArrayRef shape) {
    return original.load(name, shape, {at::kFloat, at::kFloat});
  });
  const orbax::ArrayStore written(folder.path()), expected(golden.folder / "params");
  REQUIRE(written.layouts().size() == expected.layouts().size());
  for (const auto& [name, layout] : expected.layouts()) {
    INFO(name);
    REQUIRE(written.layouts().contains(name));
    CHECK(written.layouts().at(name).info.shape == layout.info.shape);
    std::vector<std::byte> bytes(layout.info.bytes), expected_bytes(layout.info.bytes);
    orbax::ArrayReader reader = written.reader(name), expected_reader = expected.reader(name);
    reader.read(0, reader.rows(), bytes);
    expected_reader.read(0, expected_reader.rows(), expected_bytes);
    CHECK(std::ranges::equal(bytes, expected_bytes));
  }
}

}  // namespace
}  // namespace pi0
