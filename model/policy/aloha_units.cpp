#include "model/policy/aloha_units.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace pi0::policy {
namespace {

struct Range {
  double min;
  double max;
  double fraction_of(double value) const { return (value - min) / (max - min); }
  double at(double fraction) const { return fraction * (max - min) + min; }
};

constexpr Range puppet_gripper = {0.01844, 0.05800};       // metres, closed to open
constexpr Range puppet_gripper_joint = {-0.6213, 1.4910};  // radians
constexpr Range pi_gripper = {0.5476, 1.6296};             // radians: encoder counts 2405 to 3110
constexpr double arm_length = 0.036, horn_radius = 0.022;  // metres, of Interbotix' gripper

constexpr std::array<double, aloha_joints> flips = {1, -1, -1, 1, 1, 1, 1, 1, -1, -1, 1, 1, 1, 1};
constexpr std::array<std::size_t, 2> grippers = {6, 13};

void flip_joints(std::span<double> joints) {
  for (std::size_t i = 0; i < flips.size(); ++i) joints[i] *= flips[i];
}

double gripper_to_pi(double opening) {
  const double position = puppet_gripper.at(opening);
  const double sine =
      (horn_radius * horn_radius + position * position - arm_length * arm_length) / (2 * horn_radius * position);
  return pi_gripper.fraction_of(std::asin(std::clamp(sine, -1.0, 1.0)));
}

// Not the inverse of the above: the model's actions are angles already.
double gripper_to_aloha(double angle) { return puppet_gripper_joint.fraction_of(angle + pi_gripper.min); }
double gripper_angle(double fraction) { return puppet_gripper_joint.at(fraction) - pi_gripper.min; }

}  // namespace

void aloha_state_to_pi(std::span<double> state) {
  flip_joints(state);
  for (const std::size_t i : grippers) state[i] = gripper_to_pi(state[i]);
}

void pi_action_to_aloha(std::span<double> action) {
  flip_joints(action);
  for (const std::size_t i : grippers) action[i] = gripper_to_aloha(action[i]);
}

void aloha_action_to_pi(std::span<double> action) {
  flip_joints(action);
  for (const std::size_t i : grippers) action[i] = gripper_angle(action[i]);
}

}  // namespace pi0::policy
