#include "model/policy/robot_droid.h"

#include "model/policy/request_fields.h"

namespace pi0::policy {
namespace {

constexpr std::int64_t joints = 7;

class DroidRobot final : public Robot {
 public:
  std::int64_t state_size() const override { return joints + 1; }
  std::int64_t action_size() const override { return joints + 1; }

  RobotObservation read(const protocol::Dict& request) const override {
    RobotObservation seen;
    seen.state = numbers_field(request, "observation/joint_position", joints);
    seen.state.push_back(number_field(request, "observation/gripper_position"));
    seen.cameras = {
        {"base_0_rgb", image_field(request, "observation/exterior_image_1_left")},
        {"left_wrist_0_rgb", image_field(request, "observation/wrist_image_left")},
        {"right_wrist_0_rgb", std::nullopt},
    };
    seen.prompt = prompt_field(request);
    return seen;
  }

  protocol::Dict write(const ActionChunk& chunk) const override {
    protocol::Dict answer;
    answer.set("actions", leading_actions(chunk, action_size()));
    return answer;
  }
};

}  // namespace

std::unique_ptr<const Robot> make_droid_robot() { return std::make_unique<DroidRobot>(); }

}  // namespace pi0::policy
