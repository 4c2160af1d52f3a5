#include "model/policy/robot.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "model/policy/aloha_units.h"
#include "model/policy/previous_chunk.h"
#include "model/policy/request_fields.h"
#include "protocol/openpi_messages.h"

namespace pi0::policy {
namespace {

void check_camera_map(const RobotConfig& robot, const protocol::Dict& images, ImageValues values,
                      std::size_t max_image_bytes) {
  for (const auto& [field, value] : images.entries()) {
    if (std::ranges::find(robot.cameras, field, &RobotConfig::Camera::field) != robot.cameras.end()) continue;
    if (std::ranges::find(robot.unused_cameras, field) != robot.unused_cameras.end()) {
      image_field(images, field, robot.image_layout, robot.camera_map, values, max_image_bytes);
      continue;
    }
    std::string known;
    for (const RobotConfig::Camera& camera : robot.cameras) {
      if (!camera.field.empty()) known += camera.field + ", ";
    }
    for (const std::string& unused : robot.unused_cameras) known += unused + ", ";
    known.resize(known.size() - 2);
    throw RequestError(robot.camera_map + ": found the camera '" + field + "', expected only " + known);
  }
}

std::vector<Camera> read_cameras(const RobotConfig& robot, const protocol::Dict& request, ImageValues values,
                                 std::size_t max_image_bytes) {
  const bool in_map = !robot.camera_map.empty();
  const protocol::Dict& images = in_map ? map_field(request, robot.camera_map) : request;
  if (in_map) check_camera_map(robot, images, values, max_image_bytes);
  std::vector<Camera> cameras;
  for (const RobotConfig::Camera& camera : robot.cameras) {
    cameras.push_back({camera.input, std::nullopt, std::nullopt});
    const bool absent = camera.optional && images.find(camera.field) == nullptr;
    if (camera.field.empty() || absent) continue;
    if (values == ImageValues::floats) {
      cameras.back().levels =
          float_image_field(images, camera.field, robot.image_layout, robot.camera_map, max_image_bytes);
    } else {
      cameras.back().image =
          image_field(images, camera.field, robot.image_layout, robot.camera_map, values, max_image_bytes);
    }
  }
  return cameras;
}

std::vector<double> read_state(const RobotConfig& robot, const protocol::Dict& request) {
  // ALOHA's grippers are converted in place: in an array of integers, NumPy would truncate them.
  const Numbers numbers = robot.adapt_to_pi ? Numbers::floats : Numbers::any;
  std::vector<double> state;
  for (const RobotConfig::StateField& field : robot.state) {
    const std::vector<double> values = numbers_field(request, field.field, field.size, numbers);
    state.insert(state.end(), values.begin(), values.end());
  }
  if (robot.adapt_to_pi) aloha_state_to_pi(state);
  return state;
}

std::optional<std::string> read_prompt(const RobotConfig& robot, const protocol::Dict& request, std::size_t max_bytes) {
  const std::string key(protocol::prompt_key);
  if (robot.prompt_alias.empty() || request.find(robot.prompt_alias) == nullptr) {
    return prompt_field(request, key, max_bytes);
  }
  if (request.find(key) != nullptr) {
    throw RequestError(robot.prompt_alias + ": found beside '" + key + "', expected one of the two");
  }
  return prompt_field(request, robot.prompt_alias, max_bytes);
}

}  // namespace

RobotObservation read_request(const RobotConfig& robot, const protocol::Dict& request, const RequestLimits& limits,
                              ImageValues values) {
  return {read_cameras(robot, request, values, limits.image_bytes), read_state(robot, request),
          read_prompt(robot, request, limits.prompt_bytes)};
}

std::vector<std::string> request_fields(const RobotConfig& robot) {
  std::vector<std::string> fields = {std::string(protocol::prompt_key), std::string(protocol::noise_key)};
  if (!robot.prompt_alias.empty()) fields.push_back(robot.prompt_alias);
  fields.insert(fields.end(), previous_chunk_fields.begin(), previous_chunk_fields.end());
  for (const RobotConfig::StateField& field : robot.state) fields.push_back(field.field);
  if (!robot.camera_map.empty()) {
    fields.push_back(robot.camera_map);
    return fields;
  }
  for (const RobotConfig::Camera& camera : robot.cameras) {
    if (!camera.field.empty()) fields.push_back(camera.field);
  }
  return fields;
}

protocol::Dict write_answer(const RobotConfig& robot, const ActionChunk& chunk) {
  const auto horizon = static_cast<std::int64_t>(chunk.values.size()) / chunk.action_dim;
  const auto count = static_cast<std::size_t>(robot.action_size);
  protocol::NdArray actions{{'f', 8}, {horizon, robot.action_size}, {}};
  actions.data.resize(static_cast<std::size_t>(horizon) * count * sizeof(double));
  std::vector<double> action(count);
  for (std::int64_t step = 0; step < horizon; ++step) {
    std::copy_n(chunk.values.begin() + step * chunk.action_dim, count, action.begin());
    if (robot.adapt_to_pi) pi_action_to_aloha(action);
    std::memcpy(actions.data.data() + static_cast<std::size_t>(step) * count * sizeof(double), action.data(),
                count * sizeof(double));
  }
  protocol::Dict answer;
  answer.set(std::string(protocol::actions_key), std::move(actions));
  return answer;
}

}  // namespace pi0::policy
