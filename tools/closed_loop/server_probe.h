// What a server on this machine says of itself over HTTP.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace pi0::tools {

// Whether it answers GET /healthz; waits up to two seconds.
bool is_healthy(std::uint16_t port);

// Of GET /metrics: what became of the requests until now.
struct RequestCounts {
  std::int64_t answered = 0;
  std::int64_t refused = 0;  // could not be decoded
  std::int64_t failed = 0;   // the policy threw: a wrong observation, or out of memory
  std::int64_t dropped = 0;  // the client went before its answer was sent

  friend RequestCounts operator-(RequestCounts later, const RequestCounts& earlier);
};

// None from a server that does not count (pi0-quant's), does not answer within two seconds, or wants another key.
// `api_key` is empty for a server without one.
std::optional<RequestCounts> request_counts(std::uint16_t port, const std::string& api_key);

nlohmann::ordered_json to_json(const RequestCounts& counts);

}  // namespace pi0::tools
