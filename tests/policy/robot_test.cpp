#include "model/policy/robot.h"

#include "model/json_fields.h"
#include "model/policy/aloha_units.h"
#include "policy/policy_fixtures.h"
#include "support/catch.h"

namespace pi0::policy {
namespace {

std::string refusal(const std::string& robot, const protocol::Dict& request) {
  return error_of<RequestError>([&] { read_request(robot_config(robot), request); });
}

protocol::Dict with(protocol::Dict request, const std::string& key, protocol::Value value) {
  request.set(key, std::move(value));
  return request;
}

std::vector<double> actions_of(const protocol::Dict& answer, const std::vector<std::int64_t>& shape) {
  const auto& actions = std::get<protocol::NdArray>(*answer.find("actions"));
  REQUIRE(actions.dtype == protocol::DType{'f', 8});
  REQUIRE(actions.shape == shape);
  return doubles_of(actions);
}

}  // namespace

TEST_CASE("a DROID robot reads state, two cameras and the prompt", "[policy][robot]") {
  const RobotConfig robot = robot_config("droid");
  const RobotObservation seen = read_request(robot, droid_request());
  REQUIRE(seen.state == std::vector<double>{0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, 0.25});
  REQUIRE(seen.state.size() == static_cast<std::size_t>(robot.state_size()));
  REQUIRE(seen.prompt == "wave");
  REQUIRE(seen.cameras.size() == 3);
  REQUIRE(seen.cameras[0].input == "base_0_rgb");
  REQUIRE(seen.cameras[0].image->height == 4);
  REQUIRE(seen.cameras[0].image->width == 6);
  REQUIRE(seen.cameras[1].input == "left_wrist_0_rgb");
  REQUIRE(seen.cameras[1].image.has_value());
  REQUIRE(seen.cameras[2].input == "right_wrist_0_rgb");
  REQUIRE_FALSE(seen.cameras[2].image.has_value());
}

TEST_CASE("a prompt may be under the robot's other name for it", "[policy][robot]") {
  RobotConfig robot = robot_config("droid");
  protocol::Dict request = without(droid_request(), "prompt");
  request.set("task", std::string("fold"));
  REQUIRE_FALSE(read_request(robot, request).prompt.has_value());
  robot.prompt_alias = "task";
  REQUIRE(read_request(robot, request).prompt == "fold");
  REQUIRE(read_request(robot, droid_request()).prompt == "wave");
  const std::vector<std::string> fields = request_fields(robot);
  REQUIRE(std::ranges::find(fields, "task") != fields.end());
  request.set("prompt", std::string("wave"));
  REQUIRE_THAT(error_of<RequestError>([&] { read_request(robot, request); }),
               contains_text("task: found beside 'prompt', expected one of the two"));
  request = without(request, "prompt");
  request.set("task", std::int64_t{3});
  REQUIRE_THAT(error_of<RequestError>([&] { read_request(robot, request); }), contains_text("task: found int"));
}

TEST_CASE("a request's pictures may become floats", "[policy][robot]") {
  const RobotObservation seen = read_request(robot_config("droid"), droid_request(), {}, ImageValues::floats);
  REQUIRE_FALSE(seen.cameras[0].image.has_value());
  REQUIRE(seen.cameras[0].levels->height == 4);
  REQUIRE(seen.cameras[0].levels->width == 6);
  REQUIRE(seen.cameras[0].levels->levels == std::vector<float>(72, 128.0F / 255.0F));
  REQUIRE_FALSE(seen.cameras[2].levels.has_value());
}

TEST_CASE("every robot names the field that is missing", "[policy][robot]") {
  for (const std::string key : {"observation/exterior_image_1_left", "observation/wrist_image_left",
                                "observation/joint_position", "observation/gripper_position"}) {
    REQUIRE_THAT(refusal("droid", without(droid_request(), key)), contains_text(key + ": missing; expected"));
  }
  for (const std::string key : {"observation/state", "observation/image", "observation/wrist_image"}) {
    REQUIRE_THAT(refusal("libero", without(libero_request(), key)), contains_text(key + ": missing; expected"));
  }
  const protocol::Dict aloha = aloha_request({"cam_high"});
  REQUIRE_THAT(refusal("aloha", without(aloha, "state")), contains_text("state: missing; expected"));
  REQUIRE_THAT(refusal("aloha", without(aloha, "images")), contains_text("images: missing; expected a map"));
  REQUIRE_THAT(refusal("aloha", aloha_request({"cam_left_wrist"})),
               contains_text("images/cam_high: missing; expected an RGB image [3, height, width]"));
  REQUIRE_FALSE(read_request(robot_config("droid"), without(droid_request(), "prompt")).prompt.has_value());
}

TEST_CASE("a robot is given the leading actions of every step", "[policy][robot]") {
  ActionChunk chunk{10, {}};
  for (int i = 0; i < 20; ++i) chunk.values.push_back(i);
  REQUIRE(actions_of(write_answer(robot_config("droid"), chunk), {2, 8}) ==
          std::vector<double>{0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17});
  REQUIRE(actions_of(write_answer(robot_config("libero"), chunk), {2, 7}) ==
          std::vector<double>{0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 15, 16});
}

TEST_CASE("a LIBERO robot reads one state and two cameras", "[policy][robot]") {
  const RobotObservation seen = read_request(robot_config("libero"), libero_request());
  REQUIRE(seen.state == std::vector<double>(8, 0.5));
  REQUIRE(seen.cameras[0].image.has_value());
  REQUIRE(seen.cameras[1].image.has_value());
  REQUIRE_FALSE(seen.cameras[2].image.has_value());
}

TEST_CASE("ALOHA's wrist cameras may be missing, other cameras are refused", "[policy][robot]") {
  const RobotConfig robot = robot_config("aloha");
  const auto seen_by = [&](const std::vector<std::string>& cameras) {
    std::vector<bool> seen;
    for (const Camera& camera : read_request(robot, aloha_request(cameras)).cameras) {
      seen.push_back(camera.image.has_value());
    }
    return seen;
  };
  REQUIRE(seen_by({"cam_high"}) == std::vector<bool>{true, false, false});
  REQUIRE(seen_by({"cam_high", "cam_low", "cam_right_wrist"}) == std::vector<bool>{true, false, true});
  REQUIRE(seen_by({"cam_left_wrist", "cam_right_wrist", "cam_high"}) == std::vector<bool>{true, true, true});
  REQUIRE_THAT(refusal("aloha", aloha_request({"cam_high", "cam_top"})),
               contains_text("images: found the camera 'cam_top', expected only cam_high, "
                             "cam_left_wrist, cam_right_wrist, cam_low"));

  protocol::Dict images;  // openpi converts the camera that it does not use as well
  images.set("cam_high", array_of('u', {3, 4, 6}, std::vector<std::uint8_t>(72)));
  images.set("cam_low", array_of('u', {4, 6}, std::vector<std::uint8_t>(24)));
  REQUIRE_THAT(refusal("aloha", with(aloha_request({}), "images", images)),
               contains_text("images/cam_low: found uint8 array [4, 6]"));
}

TEST_CASE("ALOHA's joints and grippers are turned to Pi0's and back as openpi does", "[policy][robot]") {
  // openpi's _decode_state and _encode_actions of the same values, adapt_to_pi=True
  std::vector<double> state = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.4, 0.7, 0.8, 0.9, -1.0, 1.1, 1.2, 3.0};
  aloha_state_to_pi(state);
  const std::vector<double> expected_state = {0.1, -0.2, -0.3, 0.4,  0.5, 0.6, -0.28197938172383,
                                              0.7, -0.8, -0.9, -1.0, 1.1, 1.2, 0.945652797407483};
  std::vector<double> action = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.4, 0.7, 0.8, 0.9, -1.0, 1.1, 1.2, 3.0};
  pi_action_to_aloha(action);
  const std::vector<double> expected_action = {0.1, -0.2, -0.3, 0.4,  0.5, 0.6, 0.7427448752544619,
                                               0.7, -0.8, -0.9, -1.0, 1.1, 1.2, 1.9736306395871794};
  for (std::size_t i = 0; i < 14; ++i) {
    INFO(i);
    REQUIRE(state[i] == Approx(expected_state[i]).epsilon(1e-15));  // NumPy's arcsin: one ulp
    REQUIRE(action[i] == expected_action[i]);
  }
  aloha_action_to_pi(action);
  const std::vector<double> own = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.4, 0.7, 0.8, 0.9, -1.0, 1.1, 1.2, 3.0};
  for (std::size_t i = 0; i < 14; ++i) REQUIRE(action[i] == Approx(own[i]).epsilon(1e-14));
  REQUIRE_THAT(
      refusal("aloha", with(aloha_request({"cam_high"}), "state", array_of('i', {14}, std::vector<std::int64_t>(14)))),
      contains_text("state: found int64 array [14], expected an array of 14 floating-point"));
}

TEST_CASE("an unknown robot lists the known ones", "[policy][robot]") {
  REQUIRE_THAT(error_of<model::JsonFileError>([] { robot_config("spot"); }),
               contains_text("unknown robot 'spot'; known: aloha, droid, libero"));
}

}  // namespace pi0::policy
