// The fields of openpi's messages that are the same for every robot.
#pragma once

#include <optional>
#include <string_view>

#include "protocol/value.h"

namespace pi0::protocol {

inline constexpr std::string_view prompt_key = "prompt";
inline constexpr std::string_view noise_key = "noise";  // ours: optional, makes a request reproducible
inline constexpr std::string_view actions_key = "actions";
inline constexpr std::string_view policy_timing_key = "policy_timing";
inline constexpr std::string_view server_timing_key = "server_timing";

// Adds policy_timing: the time the model took.
void add_policy_timing(Dict& answer, double infer_ms);

// Adds server_timing: the time of the whole inference and, from a connection's second answer on, the time from when the
// server began to wait for the previous request until its answer was sent. Both in milliseconds.
void add_server_timing(Dict& answer, double infer_ms, std::optional<double> prev_total_ms);

// The answer without policy_timing and server_timing: what is left depends only on request, noise and model.
Dict without_timing(const Dict& answer);

}  // namespace pi0::protocol
