// The names in openpi's messages that are the same for every robot.
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

// Adds policy_timing: the milliseconds the model took.
void add_policy_timing(Dict& answer, double infer_ms);

// Adds server_timing: the milliseconds of the whole inference and, from the second answer of a
// connection on, of the previous request from waiting for it to its answer's last byte.
void add_server_timing(Dict& answer, double infer_ms, std::optional<double> prev_total_ms);

// The answer without both: what depends on request, noise and model alone.
Dict without_timing(const Dict& answer);

}  // namespace pi0::protocol
