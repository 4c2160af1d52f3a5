// DROID: a Franka arm with a gripper, one camera on the scene and one on the wrist.
// Reference: openpi src/openpi/policies/droid_policy.py.
//
// Request: observation/exterior_image_1_left, observation/wrist_image_left (images),
// observation/joint_position (7 numbers, radians), observation/gripper_position (1 number), prompt.
// Answer: actions [A, 8], seven joints and the gripper.
#pragma once

#include <memory>

#include "model/policy/robot.h"

namespace pi0::policy {

std::unique_ptr<const Robot> make_droid_robot();

}  // namespace pi0::policy
