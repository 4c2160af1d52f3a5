#include "server/inference_worker.h"

#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.h"
#include "support/fake_policy.h"

using namespace pi0;
using server::InferenceWorker;
using test::FakePolicy;
using test::request_with_prompt;

namespace {

std::string prompt_of(const InferenceWorker::Outcome& outcome) {
  return std::get<std::string>(*outcome.answer.find("actions"));
}

}  // namespace

TEST_CASE("requests are inferred one after the other in the order of submission", "[worker]") {
  FakePolicy policy;
  std::vector<std::string> answered;
  std::promise<void> last;
  {
    InferenceWorker worker([&](const protocol::Dict& request) { return policy.infer(request); });
    for (const char* prompt : {"wait", "a", "b", "c"}) {
      worker.submit(request_with_prompt(prompt), [&](InferenceWorker::Outcome outcome) {
        answered.push_back(prompt_of(outcome));
        if (answered.size() == 4) last.set_value();
      });
    }
    policy.release();
    REQUIRE(last.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready);
  }
  CHECK(answered == std::vector<std::string>{"wait", "a", "b", "c"});
}

TEST_CASE("an exception is the outcome and the worker goes on", "[worker]") {
  FakePolicy policy;
  InferenceWorker worker([&](const protocol::Dict& request) { return policy.infer(request); });
  std::promise<InferenceWorker::Outcome> failed;
  std::promise<InferenceWorker::Outcome> good;
  worker.submit(request_with_prompt("fail"),
                [&](InferenceWorker::Outcome outcome) { failed.set_value(std::move(outcome)); });
  worker.submit(request_with_prompt("a"),
                [&](InferenceWorker::Outcome outcome) { good.set_value(std::move(outcome)); });
  CHECK_THROWS_WITH(std::rethrow_exception(failed.get_future().get().error),
                    "'prompt': the policy was told to fail");
  CHECK(prompt_of(good.get_future().get()) == "a");
}

TEST_CASE("a request can be taken back until it starts", "[worker]") {
  FakePolicy policy;
  std::promise<void> done;
  {
    InferenceWorker worker([&](const protocol::Dict& request) { return policy.infer(request); });
    const auto running = worker.submit(request_with_prompt("wait"),
                                       [&](InferenceWorker::Outcome) { done.set_value(); });
    const auto waiting = worker.submit(request_with_prompt("never"),
                                       [](InferenceWorker::Outcome) { FAIL("it was taken back"); });
    policy.wait_for_starts(1);
    CHECK(worker.withdraw(waiting));
    CHECK_FALSE(worker.withdraw(waiting));
    CHECK_FALSE(worker.withdraw(running));
    policy.release();
    REQUIRE(done.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready);
  }
  CHECK(policy.wait_for_starts(1) == std::vector<std::string>{"wait"});
}

TEST_CASE("the end of the worker finishes what runs and drops what waits", "[worker]") {
  FakePolicy policy;
  std::vector<std::string> answered;
  std::future<void> releasing;
  {
    InferenceWorker worker([&](const protocol::Dict& request) { return policy.infer(request); });
    for (const char* prompt : {"wait", "dropped"}) {
      worker.submit(request_with_prompt(prompt), [&](InferenceWorker::Outcome outcome) {
        answered.push_back(prompt_of(outcome));
      });
    }
    policy.wait_for_starts(1);
    releasing = std::async(std::launch::async, [&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the worker's end has begun
      policy.release();
    });
  }
  CHECK(answered == std::vector<std::string>{"wait"});
}
