#include "model/policy/robot_droid.h"

#include "policy/policy_fixtures.h"
#include "support/catch.h"

namespace pi0::policy {

TEST_CASE("a DROID robot reads state, two cameras and the prompt", "[policy][droid]") {
  const auto robot = make_robot("droid");
  const RobotObservation seen = robot->read(droid_request());
  REQUIRE(seen.state == std::vector<double>{0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, 0.25});
  REQUIRE(seen.state.size() == static_cast<std::size_t>(robot->state_size()));
  REQUIRE(seen.prompt == "wave");
  REQUIRE(seen.cameras.size() == 3);
  REQUIRE(seen.cameras[0].name == "base_0_rgb");
  REQUIRE(seen.cameras[0].image->height == 4);
  REQUIRE(seen.cameras[0].image->width == 6);
  REQUIRE(seen.cameras[1].name == "left_wrist_0_rgb");
  REQUIRE(seen.cameras[1].image.has_value());
  REQUIRE(seen.cameras[2].name == "right_wrist_0_rgb");
  REQUIRE_FALSE(seen.cameras[2].image.has_value());
}

TEST_CASE("a DROID robot names the field that is missing", "[policy][droid]") {
  const auto robot = make_robot("droid");
  for (const std::string key : {"observation/exterior_image_1_left", "observation/wrist_image_left",
                                "observation/joint_position", "observation/gripper_position"}) {
    const std::string error =
        error_of<RequestError>([&] { robot->read(without(droid_request(), key)); });
    REQUIRE_THAT(error, contains_text(key + ": missing; expected"));
  }
  REQUIRE_FALSE(robot->read(without(droid_request(), "prompt")).prompt.has_value());
}

TEST_CASE("a DROID robot is given the first eight actions of every step", "[policy][droid]") {
  ActionChunk chunk{10, {}};
  for (int i = 0; i < 20; ++i) chunk.values.push_back(i);
  const protocol::Dict answer = make_robot("droid")->write(chunk);
  const auto& actions = std::get<protocol::NdArray>(*answer.find("actions"));
  REQUIRE(actions.dtype == protocol::DType{'f', 8});
  REQUIRE(actions.shape == std::vector<std::int64_t>{2, 8});
  REQUIRE(doubles_of(actions) ==
          std::vector<double>{0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17});
}

TEST_CASE("an unknown robot lists the known ones", "[policy][droid]") {
  REQUIRE_THAT(error_of<std::invalid_argument>([] { make_robot("spot"); }),
               contains_text("unknown robot 'spot'; known: droid"));
}

}  // namespace pi0::policy
