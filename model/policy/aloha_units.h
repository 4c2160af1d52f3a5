// Converts ALOHA's joint angles and gripper positions to those of the runtime that Pi0 was trained on, and back.
// Reference: _decode_state, _encode_actions and _encode_actions_inv of openpi's src/openpi/policies/aloha_policy.py.
#pragma once

#include <cstdint>
#include <span>

namespace pi0::policy {

// Two arms, each with six joints (radians) and a gripper: for ALOHA from 0 (closed) to 1 (open), for Pi0 a scaled
// angle.
constexpr std::int64_t aloha_joints = 14;

// All change 14 values in place. The last is the inverse of the second.
void aloha_state_to_pi(std::span<double> state);
void pi_action_to_aloha(std::span<double> action);
void aloha_action_to_pi(std::span<double> action);

}  // namespace pi0::policy
