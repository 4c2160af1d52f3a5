// What a robot's client sends and receives, and what of it the model sees. One class per kind of
// robot; it reads fields and slices actions, and knows no normalisation, tokens or model.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/policy/image_resize.h"
#include "protocol/value.h"

namespace pi0::policy {

// A request that cannot be answered. Its text goes to the client: field, found, expected.
class RequestError : public std::runtime_error {
  using runtime_error::runtime_error;
};

struct Camera {
  std::string name;            // openpi's: base_0_rgb, left_wrist_0_rgb, right_wrist_0_rgb
  std::optional<Image> image;  // none: the model is given black and told to ignore it
};

struct RobotObservation {
  std::vector<Camera> cameras;        // in the order of the model's inputs
  std::vector<double> state;          // the robot's units, unpadded, all finite
  std::optional<std::string> prompt;  // UTF-8
};

// An action chunk in the robot's units, row-major [horizon, action_dim].
struct ActionChunk {
  std::int64_t action_dim = 0;
  std::vector<double> values;
};

class Robot {
 public:
  virtual ~Robot() = default;
  virtual std::int64_t state_size() const = 0;   // values in RobotObservation::state
  virtual std::int64_t action_size() const = 0;  // leading actions that the robot understands
  // Throws RequestError.
  virtual RobotObservation read(const protocol::Dict& request) const = 0;
  // The answer without timings: "actions" float64 [horizon, action_size].
  virtual protocol::Dict write(const ActionChunk& chunk) const = 0;
};

std::vector<std::string> robot_names();

// Throws std::invalid_argument that lists the known names.
std::unique_ptr<const Robot> make_robot(const std::string& name);

}  // namespace pi0::policy
