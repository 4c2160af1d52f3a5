// The fields of openpi's messages that are the same for every robot.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "protocol/value.h"

namespace pi0::protocol {

inline constexpr std::string_view prompt_key = "prompt";
inline constexpr std::string_view noise_key = "noise";  // ours: optional, makes a request reproducible
inline constexpr std::string_view batch_key = "batch";  // a list of observations, alone in its request
inline constexpr std::string_view actions_key = "actions";
inline constexpr std::string_view policy_timing_key = "policy_timing";
inline constexpr std::string_view server_timing_key = "server_timing";
inline constexpr std::string_view endpoint_key = "endpoint";          // RoboArena's and vLLM-Omni's
inline constexpr std::string_view reset_answer = "reset successful";  // a text message

// What a client asks for.
enum class Endpoint { infer, reset };

// Takes the field "endpoint" out of a request; without one it is an inference, as all of openpi's requests are. Throws
// ProtocolError for another endpoint.
Endpoint take_endpoint(Dict& request);

// How long the parts of a request took, in milliseconds.
struct ServerTiming {
  double infer_ms = 0;   // of the whole inference
  double queue_ms = 0;   // from its last byte until the model's thread took it
  double decode_ms = 0;  // its bytes to values
  // From when the server began to wait for the connection's previous request until its answer was sent. None: this is
  // the first.
  std::optional<double> prev_total_ms = {};
};

// Adds policy_timing: the time the model took.
void add_policy_timing(Dict& answer, double infer_ms);

void add_server_timing(Dict& answer, const ServerTiming& timing);

// The answer without policy_timing and server_timing: what is left depends only on request, noise and model.
Dict without_timing(const Dict& answer);

}  // namespace pi0::protocol
