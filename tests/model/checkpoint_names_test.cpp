#include "model/checkpoint_names.h"

#include "support/catch.h"

namespace pi0::model {
namespace {

using Kind = TensorName::Kind;

std::string parameter(std::string_view in_file) {
  const TensorName tensor = tensor_name(in_file);
  return tensor.kind == Kind::parameter ? tensor.name : "not a parameter";
}

TEST_CASE("every layout of names becomes openpi's", "[checkpoint_names]") {
  const std::string paligemma = "paligemma_with_expert.paligemma.";
  const std::string expert = "paligemma_with_expert.gemma_expert.model.layers.3.mlp.up_proj.weight";
  for (const std::string before :
       {"", "model.", "module.model.", "_orig_mod.model.", "model._orig_mod.", "base_model.model."}) {
    const auto same = [&](const std::string& in_file, const std::string& name) {
      CHECK(parameter(before + in_file) == name);
    };
    same("action_in_proj.bias", "action_in_proj.bias");
    same("time_mlp_out.weight", "time_mlp_out.weight");
    same(expert, expert);
    same(paligemma + "lm_head.weight", paligemma + "lm_head.weight");
    same(paligemma + "language_model.lm_head.weight", paligemma + "lm_head.weight");
    same(paligemma + "language_model.model.norm.weight", paligemma + "model.language_model.norm.weight");
    same(paligemma + "model.language_model.norm.weight", paligemma + "model.language_model.norm.weight");
    same(paligemma + "vision_tower.vision_model.a", paligemma + "model.vision_tower.vision_model.a");
    same(paligemma + "multi_modal_projector.linear.bias", paligemma + "model.multi_modal_projector.linear.bias");
  }
  CHECK(parameter("paligemma_with_expert._orig_mod." + expert.substr(22)) == expert);
}

TEST_CASE("names of other models stay as they are", "[checkpoint_names]") {
  for (const char* name :
       {"", "model.", "model.vlm.weight", "language_model.model.norm.weight", "action_in", "_orig_mod."}) {
    CHECK(parameter(name) == name);
  }
}

TEST_CASE("statistics and adapters are told from parameters", "[checkpoint_names]") {
  const std::string mean = "normalize_inputs.buffer_observation_state.mean";
  CHECK(tensor_name(mean).kind == Kind::statistics);
  CHECK(tensor_name("_orig_mod." + mean).name == mean);
  CHECK(tensor_name("unnormalize_outputs.buffer_action.std").kind == Kind::statistics);
  const std::string layer =
      "base_model.model.model.paligemma_with_expert.gemma_expert.model.layers.0.self_attn.q_proj.";
  for (const char* part : {"lora_A.weight", "lora_B.default.weight", "base_layer.weight"}) {
    CHECK(tensor_name(layer + part).kind == Kind::adapter);
  }
  CHECK(tensor_name("model.state_proj.modules_to_save.default.weight").kind == Kind::adapter);
}

}  // namespace
}  // namespace pi0::model
