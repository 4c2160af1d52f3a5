#include "server/batches.h"

#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.h"
#include "support/fake_policy.h"

namespace pi0::server {
namespace {

using protocol::Dict;
using protocol::List;
using protocol::NdArray;
using protocol::Value;
using test::request_with_prompt;

// Answers with the prompt, its length as an array, and timing. The prompt "fail" is refused, "crash" a fault of the
// model.
std::vector<Outcome> answers_to(const std::vector<Dict>& requests) {
  std::vector<Outcome> outcomes;
  for (const Dict& request : requests) {
    const std::string prompt = std::get<std::string>(*request.find("prompt"));
    Outcome& outcome = outcomes.emplace_back();
    outcome.is_fault_of_model = prompt == "crash";
    if (prompt == "fail" || prompt == "crash") {
      outcome.error = std::make_exception_ptr(std::runtime_error(prompt));
      continue;
    }
    Dict timing;
    timing.set("infer_ms", 1.5);
    outcome.answer.set("actions", NdArray{{'u', 1}, {1}, {static_cast<std::uint8_t>(prompt.size())}});
    outcome.answer.set("prompt", prompt);
    outcome.answer.set("policy_timing", timing);
  }
  return outcomes;
}

Dict batch_of(const std::vector<std::string>& prompts) {
  List list;
  for (const std::string& prompt : prompts) list.items.push_back(request_with_prompt(prompt));
  Dict request;
  request.set("batch", list);
  return request;
}

Dict with_batch(Value value) {
  Dict request;
  request.set("batch", std::move(value));
  return request;
}

std::string error_of_outcome(const Outcome& outcome) {
  REQUIRE(outcome.error);
  try {
    std::rethrow_exception(outcome.error);
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::string refusal_of(Dict request) {
  const auto unused = [](const std::vector<Dict>&) -> std::vector<Outcome> {
    throw std::logic_error("nothing is to be inferred");
  };
  const std::vector<Outcome> outcomes = with_batches(unused, unused, 2)({std::move(request)});
  CHECK_FALSE(outcomes.at(0).is_fault_of_model);
  return error_of_outcome(outcomes[0]);
}

}  // namespace

TEST_CASE("a batch is answered with one call and one map", "[batches]") {
  std::vector<std::size_t> single_calls, batch_calls;
  const auto counting = [](std::vector<std::size_t>& calls) {
    return [&calls](const std::vector<Dict>& requests) {
      calls.push_back(requests.size());
      return answers_to(requests);
    };
  };
  const BatchInferFunction infer = with_batches(counting(single_calls), counting(batch_calls), 3);
  const std::vector<Outcome> outcomes = infer(
      {request_with_prompt("one"), batch_of({"a", "bb", "ccc"}), request_with_prompt("other"), batch_of({"four"})});
  REQUIRE(outcomes.size() == 4);
  CHECK(single_calls == std::vector<std::size_t>{2});
  CHECK(batch_calls == std::vector<std::size_t>{3, 1});

  CHECK(std::get<std::string>(*outcomes[0].answer.find("prompt")) == "one");
  CHECK(std::get<std::string>(*outcomes[2].answer.find("prompt")) == "other");
  CHECK(outcomes[0].observations == 1);
  CHECK(outcomes[1].observations == 3);
  const Dict& answer = outcomes[1].answer;
  REQUIRE(answer.entries().size() == 3);
  const auto& actions = std::get<NdArray>(*answer.find("actions"));
  CHECK(actions.shape == std::vector<std::int64_t>{3, 1});
  CHECK(actions.data == std::vector<std::uint8_t>{1, 2, 3});
  CHECK(std::get<std::string>(std::get<List>(*answer.find("prompt")).items.at(1)) == "bb");
  const auto& timing = std::get<Dict>(*answer.find("policy_timing"));
  CHECK(std::get<double>(*timing.find("infer_ms")) == 1.5);
  CHECK(std::get<std::int64_t>(*timing.find("batch_size")) == 3);
  CHECK(std::get<NdArray>(*outcomes[3].answer.find("actions")).shape == std::vector<std::int64_t>{1, 1});
}

TEST_CASE("the first error of an observation is the batch's, and of no other request", "[batches]") {
  const BatchInferFunction infer = with_batches(answers_to, answers_to, 3);
  const std::vector<Outcome> outcomes =
      infer({batch_of({"a", "fail", "crash"}), request_with_prompt("one"), batch_of({"crash"}), batch_of({"b"})});
  CHECK(error_of_outcome(outcomes[0]) == "fail");
  CHECK_FALSE(outcomes[0].is_fault_of_model);
  CHECK_FALSE(outcomes[1].error);
  CHECK(error_of_outcome(outcomes[2]) == "crash");
  CHECK(outcomes[2].is_fault_of_model);
  CHECK_FALSE(outcomes[3].error);
}

TEST_CASE("what is no batch is refused by name", "[batches]") {
  CHECK(refusal_of(batch_of({})) == "batch: found an empty list, expected a list of observations");
  CHECK(refusal_of(with_batch(std::string("x"))) == "batch: found str, expected a list of observations");
  CHECK(refusal_of(with_batch(request_with_prompt("a"))) == "batch: found map, expected a list of observations");
  CHECK(refusal_of(batch_of({"a", "b", "c"})) ==
        "batch: found 3 observations, expected at most 2 (the server's --max-observations)");
  CHECK(refusal_of(with_batch(List{{request_with_prompt("a"), Value(std::int64_t{1})}})) ==
        "batch[1]: found int, expected a map");
  CHECK(refusal_of(with_batch(List{{batch_of({"a"})}})) == "batch[0]: found another batch, expected an observation");
  Dict beside = batch_of({"a"});
  beside.set("prompt", "b");
  CHECK(refusal_of(beside) == "batch: found beside 'prompt', expected alone");
}

TEST_CASE("a policy that returns another number of answers is at fault", "[batches]") {
  const auto none = [](const std::vector<Dict>&) { return std::vector<Outcome>{}; };
  CHECK_THROWS_AS(with_batches(none, none, 2)({batch_of({"a"})}), std::logic_error);
  CHECK_THROWS_AS(with_batches(none, none, 2)({request_with_prompt("a")}), std::logic_error);
}

}  // namespace pi0::server
