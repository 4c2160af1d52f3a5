#include <stdexcept>

#include "model/json_fields.h"
#include "model/policy/policy_config.h"

namespace pi0::policy {
namespace {

using model::Json;

Json json_of(const RobotConfig& robot) {
  Json json;
  for (const RobotConfig::Camera& camera : robot.cameras) {
    Json entry = {{"input", camera.input}};
    if (!camera.field.empty()) entry["field"] = camera.field;
    if (camera.optional) entry["optional"] = true;
    json["cameras"].push_back(std::move(entry));
  }
  if (!robot.camera_map.empty()) json["camera_map"] = robot.camera_map;
  if (!robot.unused_cameras.empty()) json["unused_cameras"] = robot.unused_cameras;
  json["image_layout"] = robot.image_layout == ImageLayout::any ? "any" : "channels_first";
  for (const RobotConfig::StateField& field : robot.state) {
    json["state"].push_back({{"field", field.field}, {"size", field.size}});
  }
  if (!robot.prompt_alias.empty()) json["prompt_alias"] = robot.prompt_alias;
  json["action_size"] = robot.action_size;
  if (!robot.action_names.empty()) json["action_names"] = robot.action_names;
  if (!robot.gripper_actions.empty()) json["gripper_actions"] = robot.gripper_actions;
  if (robot.adapt_to_pi) json["adapt_to_pi"] = true;
  return json;
}

const char* name_of(Normalization normalization) {
  switch (normalization) {
    case Normalization::quantile:
      return "quantile";
    case Normalization::z_score:
      return "z_score";
    case Normalization::lerobot_quantile:
      return "lerobot_quantile";
    case Normalization::lerobot_z_score:
      return "lerobot_z_score";
  }
  throw std::logic_error("unknown normalization");
}

}  // namespace

std::string policy_json(const PolicyConfig& policy) {
  if (!policy.metadata.entries().empty()) throw std::logic_error("policy_json: metadata is not written");
  Json json = {{"pi05", policy.pi05},
               {"paligemma_variant", policy.paligemma_variant},
               {"action_expert_variant", policy.action_expert_variant},
               {"action_dim", policy.action_dim},
               {"action_horizon", policy.action_horizon},
               {"max_token_len", policy.max_token_len},
               {"discrete_state_input", policy.discrete_state_input},
               {"asset_id", policy.asset_id},
               {"normalization", name_of(policy.normalization)}};
  if (policy.resize == Resize::lerobot) {
    json["resize"] = "lerobot";
    json["padding_value"] = policy.padding.value;
    json["padding_place"] = policy.padding.place == Padding::Place::around ? "around" : "left_top";
  }
  if (!policy.clean_prompt) json["clean_prompt"] = false;
  if (policy.padded_state_in_prompt) json["padded_state_in_prompt"] = true;
  json["robot"] = json_of(policy.robot);
  if (!policy.delta_action_mask.empty()) json["delta_action_mask"] = policy.delta_action_mask;
  if (policy.default_prompt) json["default_prompt"] = *policy.default_prompt;
  return json.dump(2) + "\n";
}

}  // namespace pi0::policy
