#include "protocol/openpi_messages.h"

#include <string>
#include <utility>

namespace pi0::protocol {
namespace {

Dict timing(double infer_ms) {
  Dict dict;
  dict.set("infer_ms", infer_ms);
  return dict;
}

}  // namespace

void add_policy_timing(Dict& answer, double infer_ms) { answer.set(std::string(policy_timing_key), timing(infer_ms)); }

void add_server_timing(Dict& answer, double infer_ms, std::optional<double> prev_total_ms) {
  Dict dict = timing(infer_ms);
  if (prev_total_ms) dict.set("prev_total_ms", *prev_total_ms);
  answer.set(std::string(server_timing_key), std::move(dict));
}

Dict without_timing(const Dict& answer) {
  Dict untimed;
  for (const auto& [key, value] : answer.entries()) {
    if (key != policy_timing_key && key != server_timing_key) untimed.set(key, value);
  }
  return untimed;
}

}  // namespace pi0::protocol
