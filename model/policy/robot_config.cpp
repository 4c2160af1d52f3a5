#include "model/policy/robot_config.h"

#include <algorithm>
#include <array>
#include <set>

#include "model/json_fields.h"
#include "model/nearest_name.h"
#include "model/policy/aloha_units.h"
#include "model/policy/builtin_configs.h"

namespace pi0::policy {
namespace {

using model::JsonFields;

constexpr std::array camera_inputs = {"base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"};

std::vector<RobotConfig::Camera> read_cameras(JsonFields& fields) {
  std::vector<RobotConfig::Camera> cameras;
  for (JsonFields& camera : fields.objects("cameras")) {
    if (cameras.size() < camera_inputs.size() && camera.text("input") != camera_inputs[cameras.size()]) {
      camera.mistyped("input", std::string("\"") + camera_inputs[cameras.size()] + "\"");
    }
    cameras.push_back({camera.text("input"), camera.has("field") ? camera.text("field") : "",
                       camera.has("optional") && camera.flag("optional")});
    camera.finish();
    if (cameras.back().optional && cameras.back().field.empty()) {
      camera.refuse("'optional' is true, but there is no 'field'");
    }
  }
  if (cameras.size() != camera_inputs.size()) {
    fields.refuse("'cameras' has " + std::to_string(cameras.size()) +
                  " entries, expected one for each of the model's three inputs");
  }
  if (cameras.front().field.empty() || cameras.front().optional) {
    fields.refuse("'cameras': base_0_rgb must be a field that every request has");
  }
  return cameras;
}

std::vector<RobotConfig::StateField> read_state(JsonFields& fields) {
  std::vector<RobotConfig::StateField> state;
  for (JsonFields& field : fields.objects("state")) {
    state.push_back({field.text("field"), field.count("size")});
    field.finish();
  }
  return state;
}

ImageLayout read_layout(JsonFields& fields) {
  const std::string layout = fields.text("image_layout");
  if (layout == "any") return ImageLayout::any;
  if (layout == "channels_first") return ImageLayout::channels_first;
  fields.mistyped("image_layout", "\"any\" or \"channels_first\"");
}

void read_action_names(JsonFields& fields, RobotConfig& robot) {
  if (fields.has("action_names")) robot.action_names = fields.texts("action_names");
  if (fields.has("gripper_actions")) robot.gripper_actions = fields.texts("gripper_actions");
  const std::vector<std::string>& names = robot.action_names;
  if (!names.empty() && names.size() != static_cast<std::size_t>(robot.action_size)) {
    fields.refuse("'action_names' has " + std::to_string(names.size()) + " entries, expected one for each of the " +
                  std::to_string(robot.action_size) + " of 'action_size'");
  }
  if (std::set(names.begin(), names.end()).size() != names.size()) fields.refuse("'action_names' has a name twice");
  for (const std::string& name : robot.gripper_actions) {
    if (std::ranges::find(names, name) == names.end()) {
      fields.refuse("'gripper_actions' has '" + name + "', which is not one of 'action_names'");
    }
  }
}

}  // namespace

std::int64_t RobotConfig::state_size() const {
  std::int64_t size = 0;
  for (const StateField& field : state) size += field.size;
  return size;
}

std::vector<std::string> robot_names() {
  std::vector<std::string> names;
  for (const auto& [name, text] : builtin_robots()) names.push_back(name);
  return names;
}

RobotConfig robot_config(const std::string& name) {
  const auto found = builtin_robots().find(name);
  if (found != builtin_robots().end()) {
    const std::string source = "robot " + name;
    const model::Json json = model::parse_json(found->second, source);
    return read_robot({json, source});
  }
  std::string known;
  for (const std::string& robot : robot_names()) known += (known.empty() ? "" : ", ") + robot;
  throw model::JsonFileError("unknown robot '" + name + "'; known: " + known +
                             model::did_you_mean(name, robot_names()));
}

RobotConfig read_robot(JsonFields fields) {
  RobotConfig robot;
  robot.cameras = read_cameras(fields);
  if (fields.has("camera_map")) robot.camera_map = fields.text("camera_map");
  if (fields.has("unused_cameras")) robot.unused_cameras = fields.texts("unused_cameras");
  robot.image_layout = read_layout(fields);
  robot.state = read_state(fields);
  if (fields.has("prompt_alias")) robot.prompt_alias = fields.text("prompt_alias");
  robot.action_size = fields.count("action_size");
  read_action_names(fields, robot);
  robot.adapt_to_pi = fields.has("adapt_to_pi") && fields.flag("adapt_to_pi");
  fields.finish();
  if (!robot.unused_cameras.empty() && robot.camera_map.empty()) {
    fields.refuse("'unused_cameras' needs a 'camera_map'");
  }
  if (robot.adapt_to_pi && (robot.state_size() != aloha_joints || robot.action_size != aloha_joints)) {
    fields.refuse("'adapt_to_pi' is for ALOHA's 14 joints, but the state has " + std::to_string(robot.state_size()) +
                  " numbers and the action " + std::to_string(robot.action_size));
  }
  return robot;
}

}  // namespace pi0::policy
