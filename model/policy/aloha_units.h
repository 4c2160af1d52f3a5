// ALOHA's joint angles and gripper positions, and those of the runtime that Pi0 was trained on.
// Reference: _decode_state and _encode_actions of openpi's src/openpi/policies/aloha_policy.py.
#pragma once

#include <cstdint>
#include <span>

namespace pi0::policy {

// Twice six joints (radians) and a gripper: 0 closed to 1 open for ALOHA, Pi0's an angle in a range
// of its own.
constexpr std::int64_t aloha_joints = 14;

// Both change 14 values in place.
void aloha_state_to_pi(std::span<double> state);
void pi_action_to_aloha(std::span<double> action);

}  // namespace pi0::policy
