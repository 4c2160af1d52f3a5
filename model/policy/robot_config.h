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
    std::string field;      // empty: the robot has none, the model is told to ignore it
    bool optional = false;  // a request may lack it: as if the robot had none
  };
  struct StateField {
    std::string field;
    std::int64_t size = 0;  // numbers; a field of one may also be a number without an axis
  };

  std::vector<Camera> cameras;              // the model's three inputs in their order
  std::string camera_map;                   // field that holds the cameras; empty: the request does
  std::vector<std::string> unused_cameras;  // may be in the map, and are checked all the same
  ImageLayout image_layout = ImageLayout::any;
  std::vector<StateField> state;  // one after the other
  std::int64_t action_size = 0;   // leading actions that the robot understands
  bool adapt_to_pi = false;       // ALOHA's joints and grippers to those Pi0 was trained on, and back

  std::int64_t state_size() const;
};

std::vector<std::string> robot_names();

// A robot that came with the library. Throws model::JsonFileError that lists the known names.
RobotConfig robot_config(const std::string& name);

// Throws model::JsonFileError.
RobotConfig read_robot(model::JsonFields fields);

}  // namespace pi0::policy
