#include "model/checkpoint.h"

#include "model/pi0.h"
#include "support/catch.h"
#include "support/temporary_folder.h"
#include "support/tensor_file.h"
#include "support/tiny_model.h"

namespace pi0 {
namespace {

using model::Precision;
using Tensors = std::map<std::string, at::Tensor>;
namespace fs = std::filesystem;

constexpr const char* embedding = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight";
constexpr const char* head = "paligemma_with_expert.paligemma.lm_head.weight";
constexpr const char* expert_head = "paligemma_with_expert.gemma_expert.lm_head.weight";

Tensors golden_tensors() {
  const model::SafetensorsFile file(fs::path("goldens/tiny_pi05/model.safetensors"));
  Tensors tensors;
  for (const auto& [name, entry] : file.entries()) tensors[name] = file.tensor(name);
  return tensors;
}

at::Tensor actions_of(const fs::path& folder, Precision precision = Precision::float32) {
  const test::GoldenCase golden = test::read_case("tiny_pi05");
  model::Checkpoint checkpoint(folder);
  const model::Pi0 pi0(golden.config, checkpoint, precision, {});
  checkpoint.finish();
  return pi0.sample_actions(golden.inputs, golden.noise, 2);
}

std::string refusal(const Tensors& tensors) {
  const test::TemporaryFolder folder;
  test::write_tensors(folder.path() / "model.safetensors", tensors);
  try {
    actions_of(folder.path());
  } catch (const model::CheckpointError& error) {
    CHECK_THAT(error.what(), contains_text(folder.path().string()));
    return error.what();
  }
  return "accepted";
}

TEST_CASE("tied, sharded, prefixed and headless files hold the same model", "[checkpoint]") {
  const at::Tensor expected = actions_of("goldens/tiny_pi05");
  const Tensors tensors = golden_tensors();
  const auto same_actions = [&](const Tensors& changed) {
    const test::TemporaryFolder folder;
    test::write_tensors(folder.path() / "model.safetensors", changed);
    return at::equal(actions_of(folder.path()), expected);
  };

  Tensors under_embedding = tensors;
  under_embedding[embedding] = under_embedding.extract(head).mapped();
  CHECK(same_actions(under_embedding));

  Tensors under_both = under_embedding;
  under_both[head] = under_both[embedding];
  CHECK(same_actions(under_both));

  Tensors headless = under_embedding;
  headless.erase(expert_head);
  CHECK(same_actions(headless));

  Tensors lerobot;
  for (const auto& [name, tensor] : tensors) lerobot["model." + name] = tensor;
  CHECK(same_actions(lerobot));

  const test::TemporaryFolder folder;
  Tensors shards[2];
  std::string weight_map;
  int i = 0;
  for (const auto& [name, tensor] : tensors) {
    const int shard = i++ % 2;
    shards[shard][name] = tensor;
    weight_map +=
        (weight_map.empty() ? "" : ",") + ("\"" + name + "\":\"part" + std::to_string(shard) + ".safetensors\"");
  }
  test::write_tensors(folder.path() / "part0.safetensors", shards[0]);
  test::write_tensors(folder.path() / "part1.safetensors", shards[1]);
  const fs::path index = folder.path() / "model.safetensors.index.json";
  test::write_all(index, R"({"metadata":{},"weight_map":{)" + weight_map + "}}");
  CHECK(at::equal(actions_of(folder.path()), expected));

  test::write_tensors(folder.path() / "part1.safetensors", Tensors{{"stray", at::ones({1})}});
  CHECK_THROWS_WITH(actions_of(folder.path()), contains_text("part1.safetensors") && contains_text("stray"));
  fs::remove(folder.path() / "part1.safetensors");
  CHECK_THROWS_WITH(actions_of(folder.path()), contains_text("part1.safetensors"));
  test::write_all(index, R"({"weight_map":{"a":"../elsewhere.safetensors"}})");
  CHECK_THROWS_WITH(actions_of(folder.path()), contains_text("beside the index"));
  test::write_all(index, "{");
  CHECK_THROWS_WITH(actions_of(folder.path()), contains_text("not valid JSON"));
}

TEST_CASE("other names of the same tensors load the same model", "[checkpoint]") {
  const at::Tensor expected = actions_of("goldens/tiny_pi05");
  const Tensors tensors = golden_tensors();
  const auto same_actions_under = [&](auto name_of) {
    Tensors renamed;
    for (const auto& [name, tensor] : tensors) renamed[name_of(name)] = tensor;
    // LeRobot up to 0.3 keeps them among the weights.
    for (const char* name :
         {"normalize_inputs.buffer_observation_state.mean", "unnormalize_outputs.buffer_action.std"}) {
      renamed[name] = at::ones({8});
    }
    const test::TemporaryFolder folder;
    test::write_tensors(folder.path() / "model.safetensors", renamed);
    return at::equal(actions_of(folder.path()), expected);
  };
  const auto before_transformers_4_52 = [](const std::string& name) {
    const std::string root = "paligemma_with_expert.paligemma.";
    const auto moved = [&](const std::string& from, const std::string& to) {
      return name.starts_with(root + from) ? "model." + root + to + name.substr(root.size() + from.size()) : "";
    };
    for (const auto& [from, to] : {std::pair{"lm_head.", "language_model.lm_head."},
                                   {"model.language_model.", "language_model.model."},
                                   {"model.", ""}}) {
      if (std::string other = moved(from, to); !other.empty()) return other;
    }
    return "model." + name;
  };
  CHECK(same_actions_under(before_transformers_4_52));
  for (const char* prefix : {"", "model.", "module.", "_orig_mod.", "module._orig_mod.model.", "base_model.model."}) {
    CHECK(same_actions_under([&](const std::string& name) { return prefix + name; }));
  }
}

TEST_CASE("statistics among the weights can be read", "[checkpoint]") {
  Tensors tensors = golden_tensors();
  tensors["unnormalize_outputs.buffer_action.mean"] = at::arange(7, at::kFloat);
  const test::TemporaryFolder folder;
  test::write_tensors(folder.path() / "model.safetensors", tensors);
  const auto statistics = model::Checkpoint(folder.path()).statistics();
  REQUIRE(statistics.size() == 1);
  CHECK(at::equal(statistics.at("unnormalize_outputs.buffer_action.mean"), at::arange(7, at::kFloat)));
}

TEST_CASE("the dtype of a file changes nothing that its rounding does not", "[checkpoint]") {
  const auto actions_stored_as = [](at::ScalarType dtype) {
    Tensors tensors = golden_tensors();
    for (auto& [name, tensor] : tensors) {
      const bool root = !name.starts_with("paligemma_with_expert.");
      if (!root) tensor = tensor.to(at::kBFloat16).to(dtype);
    }
    const test::TemporaryFolder folder;
    test::write_tensors(folder.path() / "model.safetensors", tensors);
    return actions_of(folder.path(), Precision::bfloat16);
  };
  const at::Tensor from_float32 = actions_of("goldens/tiny_pi05", Precision::bfloat16);
  CHECK(at::equal(actions_stored_as(at::kBFloat16), from_float32));
  CHECK(at::equal(actions_stored_as(at::kFloat), from_float32));
  CHECK_FALSE(at::equal(actions_stored_as(at::kHalf), actions_of("goldens/tiny_pi05")));
}

TEST_CASE("bfloat16 keeps in float32 what openpi keeps", "[checkpoint]") {
  const auto dtype = [](const std::string& name) {
    return model::storage_of("paligemma_with_expert." + name, Precision::bfloat16).dtype;
  };
  CHECK(dtype("paligemma.model.vision_tower.vision_model.embeddings.patch_embedding.bias") == at::kFloat);
  CHECK(dtype("paligemma.model.language_model.norm.weight") == at::kFloat);
  CHECK(dtype("gemma_expert.model.layers.3.input_layernorm.dense.weight") == at::kFloat);
  CHECK(dtype("paligemma.model.vision_tower.vision_model.post_layernorm.weight") == at::kBFloat16);
  CHECK(dtype("paligemma.model.language_model.embed_tokens.weight") == at::kBFloat16);
  const model::Storage root = model::storage_of("action_in_proj.weight", Precision::bfloat16);
  CHECK(root.rounding == at::kFloat);
}

TEST_CASE("missing, extra, misshapen and mistyped tensors are refused by name", "[checkpoint]") {
  const Tensors good = golden_tensors();
  REQUIRE(refusal(good) == "accepted");

  Tensors missing = good;
  missing.erase("time_mlp_in.bias");
  CHECK_THAT(refusal(missing), contains_text("'time_mlp_in.bias' is missing"));
  missing = good;
  missing.erase(head);
  CHECK_THAT(refusal(missing), contains_text(embedding));

  Tensors with_expert_embedding = good;
  with_expert_embedding["paligemma_with_expert.gemma_expert.model.embed_tokens.weight"] = at::ones({2, 3});
  CHECK(refusal(with_expert_embedding) == "accepted");

  Tensors extra = good;
  extra["state_proj.weight"] = at::ones({2});
  CHECK_THAT(refusal(extra), contains_text("'state_proj.weight'"));

  Tensors misshapen = good;
  misshapen["action_in_proj.weight"] = at::ones({48, 33});
  CHECK_THAT(refusal(misshapen),
             contains_text("'action_in_proj.weight'") && contains_text("[48, 33]") && contains_text("[48, 32]"));
  misshapen = good;
  misshapen[expert_head] = at::ones({512, 47});
  CHECK_THAT(refusal(misshapen), contains_text(expert_head));

  Tensors twice = good;
  twice["model.action_in_proj.weight"] = good.at("action_in_proj.weight");
  CHECK_THAT(refusal(twice), contains_text("'action_in_proj.weight' and 'model.action_in_proj.weight'"));
  Tensors adapter = good;
  adapter["base_model.model.action_in_proj.lora_A.weight"] = at::ones({4, 32});
  CHECK_THAT(refusal(adapter), contains_text("lora_A.weight' belongs to a PEFT adapter") && contains_text("merge"));
  CHECK_THAT(refusal({{"vlm.weight", at::ones({2})}}),
             contains_text("no tensor of a Pi0") && contains_text("'vlm.weight'"));

  Tensors mistyped = good;
  mistyped["action_in_proj.weight"] = at::ones({48, 32}, at::kInt);
  CHECK_THAT(refusal(mistyped), contains_text("'action_in_proj.weight'") && contains_text("Int"));
}

}  // namespace
}  // namespace pi0
