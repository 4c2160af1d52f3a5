// The request fields of real-time chunking: docs/real_time_chunking.md.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "model/continuation.h"
#include "protocol/value.h"

namespace pi0::policy {

inline constexpr std::array<std::string_view, 5> previous_chunk_fields = {
    "prev_chunk", "inference_delay", "execution_horizon", "prefix_attention_schedule", "rtc"};

// What the robot has still to carry out when it asks for the next chunk.
struct PreviousChunk {
  std::vector<double> actions;  // [n, robot's actions] row-major, in the robot's units
  std::int64_t count = 0;       // n, from 1 to the action horizon
  std::int64_t delay = 0;       // how many of them will have been carried out when the answer arrives
  std::int64_t horizon = 0;     // how many of them guidance looks at; delay <= horizon <= n
  model::PrefixSchedule schedule = model::PrefixSchedule::linear;
  bool freeze = false;  // the actions of the delay are held, and no other is guided
};

// None if the request has none of the fields. Throws RequestError that names the field, what was found and what was
// expected.
std::optional<PreviousChunk> read_previous_chunk(const protocol::Dict& request, std::int64_t action_size,
                                                 std::int64_t action_horizon);

}  // namespace pi0::policy
