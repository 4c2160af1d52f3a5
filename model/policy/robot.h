// Converts a robot's request to an observation, and the model's actions to the robot's answer. Reads fields, converts
// units and slices actions as RobotConfig says. Knows nothing of normalisation, tokens or the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/policy/image_resize.h"
#include "model/policy/lerobot_image.h"
#include "model/policy/robot_config.h"
#include "protocol/value.h"

namespace pi0::policy {

// A request that cannot be answered. Its text goes to the client: field, found, expected.
class RequestError : public std::runtime_error {
  using runtime_error::runtime_error;
};

struct Camera {
  std::string input;                 // the model's: base_0_rgb, left_wrist_0_rgb, right_wrist_0_rgb
  std::optional<Image> image;        // as ImageValues says, one of the two; none: the model gets a black image and a
  std::optional<FloatImage> levels;  // mask that is false
};

// What the pixels of requests become. Floats outside [0, 1] are refused, but for wrapped_bytes.
enum class ImageValues {
  bytes,
  wrapped_bytes,  // floats outside [0, 1] wrap around, as openpi's do
  floats
};

struct RobotObservation {
  std::vector<Camera> cameras;        // in the order of the model's inputs
  std::vector<double> state;          // in the units the model was trained on, unpadded, all finite
  std::optional<std::string> prompt;  // UTF-8
};

// An action chunk in the units the model was trained on, row-major [horizon, action_dim].
struct ActionChunk {
  std::int64_t action_dim = 0;
  std::vector<double> values;
};

struct RequestLimits {
  std::size_t prompt_bytes = std::size_t{16} << 10;  // of UTF-8
  std::size_t image_bytes = std::size_t{64} << 20;   // of a PNG or JPEG image: height x width x 3
};

// Throws RequestError, also for what is beyond the limits.
RobotObservation read_request(const RobotConfig& robot, const protocol::Dict& request, const RequestLimits& limits = {},
                              ImageValues values = ImageValues::bytes);

// Names of all fields that read_request may read, and those that are the same for every robot: "noise" and those of
// previous_chunk.h.
std::vector<std::string> request_fields(const RobotConfig& robot);

// The answer without timings: "actions" float64 [horizon, robot.action_size].
protocol::Dict write_answer(const RobotConfig& robot, const ActionChunk& chunk);

}  // namespace pi0::policy
