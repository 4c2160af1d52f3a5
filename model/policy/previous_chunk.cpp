#include "model/policy/previous_chunk.h"

#include <algorithm>
#include <limits>
#include <string>

#include "model/policy/request_fields.h"

namespace pi0::policy {
namespace {

constexpr std::int64_t default_horizon = 10;  // LeRobot's

// LeRobot's names, in the order of model::PrefixSchedule.
constexpr std::array<std::string_view, 4> schedules = {"LINEAR", "EXP", "ONES", "ZEROS"};
constexpr std::array<std::string_view, 2> modes = {"guided", "freeze"};

}  // namespace

std::optional<PreviousChunk> read_previous_chunk(const protocol::Dict& request, std::int64_t action_size,
                                                 std::int64_t action_horizon) {
  const auto has = [&](std::string_view field) { return request.find(field) != nullptr; };
  if (std::ranges::none_of(previous_chunk_fields, has)) return std::nullopt;
  PreviousChunk chunk;
  chunk.actions = rows_field(request, "prev_chunk", action_horizon, action_size);
  chunk.count = static_cast<std::int64_t>(chunk.actions.size()) / action_size;
  chunk.delay = integer_field(request, "inference_delay", 0, chunk.count,
                              "an integer from 0 to " + std::to_string(chunk.count) + ", the actions of prev_chunk");
  chunk.horizon = std::max(default_horizon, chunk.delay);
  if (has("execution_horizon")) {
    const std::int64_t least = std::max<std::int64_t>(chunk.delay, 1);
    chunk.horizon =
        integer_field(request, "execution_horizon", least, std::numeric_limits<std::int32_t>::max(),
                      "an integer, at least " + std::to_string(least) + (chunk.delay > 0 ? " as inference_delay" : ""));
  }
  chunk.horizon = std::min(chunk.horizon, chunk.count);
  chunk.schedule = static_cast<model::PrefixSchedule>(choice_field(request, "prefix_attention_schedule", schedules));
  chunk.freeze = choice_field(request, "rtc", modes) == 1;
  return chunk;
}

}  // namespace pi0::policy
