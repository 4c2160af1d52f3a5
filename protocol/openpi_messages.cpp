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

void add_policy_timing(Dict& answer, double infer_ms) {
  answer.set(std::string(policy_timing_key), timing(infer_ms));
}

void add_server_timing(Dict& answer, double infer_ms, std::optional<double> prev_total_ms) {
  Dict dict = timing(infer_ms);
  if (prev_total_ms) dict.set("prev_total_ms", *prev_total_ms);
  answer.set(std::string(server_timing_key), std::move(dict));
}

}  // namespace pi0::protocol
