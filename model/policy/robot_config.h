// What a robot's client sends and receives, as data: configs/robots/<name>.json, or the same schema
// inside a policy's file (configs/README.md).
// Reference: openpi src/openpi/policies/{droid,aloha,libero}_policy.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace pi0::model {
class JsonFields;
}

namespace pi0::policy {

enum class ImageLayout {
  any,             // [H, W, 3], or [3, H, W] when the first size is 3
  channels_first,  // [3, H, W]
};

struct RobotConfig {
  struct Camera {
    std::string input;      // the model's: base_0_rgb, left_wrist_0_rgb, right_wrist_0_rgb
    std::string field;      // empty: the robot has no such camera, and its mask is false
    bool optional = false;  // a request may lack the field: then the mask is false
  };
  struct StateField {
    std::string field;
    std::int64_t size = 0;  // count of numbers; a field of one may also be a scalar
  };

  std::vector<Camera> cameras;              // the model's three inputs in their order
  std::string camera_map;                   // field with the map of cameras; empty: they are fields of the request
  std::vector<std::string> unused_cameras;  // allowed in the map, and checked, but not used
  ImageLayout image_layout = ImageLayout::any;
  std::vector<StateField> state;             // concatenated in this order
  std::string prompt_alias;                  // another field that may hold the prompt in place of "prompt"; empty: none
  std::int64_t action_size = 0;              // the leading values of an action, which the robot uses
  std::vector<std::string> action_names;     // of each of them; empty: they have none
  std::vector<std::string> gripper_actions;  // those of action_names that open and close grippers
  bool adapt_to_pi = false;                  // convert ALOHA's units to those of Pi0's training, and back

  std::int64_t state_size() const;
};

std::vector<std::string> robot_names();

// A built-in robot. Throws model::JsonFileError that lists the known names.
RobotConfig robot_config(const std::string& name);

// Throws model::JsonFileError.
RobotConfig read_robot(model::JsonFields fields);

}  // namespace pi0::policy
