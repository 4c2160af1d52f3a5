#include "protocol/openpi_messages.h"

#include <utility>

#include "protocol/msgpack_numpy.h"
#include "support/catch.h"

using namespace pi0::protocol;

TEST_CASE("server_timing comes last and has prev_total_ms only when there is one", "[messages]") {
  Dict answer;
  add_policy_timing(answer, 2.5);
  add_server_timing(answer, {.infer_ms = 3.5, .queue_ms = 1.5, .decode_ms = 0.5});
  REQUIRE(answer.entries().size() == 2);
  CHECK(answer.entries()[0].first == "policy_timing");
  CHECK(answer.entries()[1].first == "server_timing");
  CHECK(std::get<Dict>(*answer.find("server_timing")).find("prev_total_ms") == nullptr);

  add_server_timing(answer, {3.5, 1.5, 0.5, 9.0});
  const Dict& timing = std::get<Dict>(*answer.find("server_timing"));
  REQUIRE(timing.entries().size() == 4);
  CHECK(std::get<double>(*timing.find("infer_ms")) == 3.5);
  CHECK(std::get<double>(*timing.find("queue_ms")) == 1.5);
  CHECK(std::get<double>(*timing.find("decode_ms")) == 0.5);
  CHECK(std::get<double>(*timing.find("prev_total_ms")) == 9.0);
}

TEST_CASE("an answer without timing keeps the rest in its order", "[messages]") {
  Dict answer;
  answer.set("actions", 1.0);
  add_policy_timing(answer, 2.5);
  answer.set("more", 2.0);
  add_server_timing(answer, {.infer_ms = 3.5});
  const Dict untimed = without_timing(answer);
  REQUIRE(untimed.entries().size() == 2);
  CHECK(untimed.entries()[0].first == "actions");
  CHECK(untimed.entries()[1].first == "more");
}

TEST_CASE("the endpoint is taken out of a request", "[messages]") {
  const auto endpoint = [](Value value) {
    Dict request;
    request.set("endpoint", std::move(value));
    request.set("prompt", "wave");
    const Endpoint found = take_endpoint(request);
    CHECK(request.entries().size() == 1);
    return found;
  };
  CHECK(endpoint("infer") == Endpoint::infer);
  CHECK(endpoint("reset") == Endpoint::reset);
  Dict plain;
  CHECK(take_endpoint(plain) == Endpoint::infer);
  CHECK_THROWS_WITH(endpoint("Reset"), "endpoint: found 'Reset', expected 'infer' or 'reset'");
  CHECK_THROWS_WITH(endpoint(""), "endpoint: found '', expected 'infer' or 'reset'");
  CHECK_THROWS_WITH(endpoint(1), "endpoint: found int, expected 'infer' or 'reset'");
}
