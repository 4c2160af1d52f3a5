#include "protocol/openpi_messages.h"

#include <string>
#include <utility>
#include <variant>

#include "protocol/msgpack_numpy.h"
#include "protocol/utf8.h"

namespace pi0::protocol {
namespace {

Dict timing(double infer_ms) {
  Dict dict;
  dict.set("infer_ms", infer_ms);
  return dict;
}

}  // namespace

Endpoint take_endpoint(Dict& request) {
  const Value* const value = request.find(endpoint_key);
  if (value == nullptr) return Endpoint::infer;
  const auto* const name = std::get_if<std::string>(value);
  if (name == nullptr || (*name != "infer" && *name != "reset")) {
    throw ProtocolError("endpoint: found " + (name == nullptr ? type_name(*value) : "'" + clipped(*name) + "'") +
                        ", expected 'infer' or 'reset'");
  }
  const Endpoint endpoint = *name == "reset" ? Endpoint::reset : Endpoint::infer;
  request.erase(endpoint_key);
  return endpoint;
}

void add_policy_timing(Dict& answer, double infer_ms) { answer.set(std::string(policy_timing_key), timing(infer_ms)); }

void add_server_timing(Dict& answer, const ServerTiming& times) {
  Dict dict = timing(times.infer_ms);
  dict.set("queue_ms", times.queue_ms);
  dict.set("decode_ms", times.decode_ms);
  if (times.prev_total_ms) dict.set("prev_total_ms", *times.prev_total_ms);
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
