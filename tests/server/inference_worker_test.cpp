#include "server/inference_worker.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.h"
#include "support/fake_policy.h"

using namespace pi0;
using server::InferenceWorker;
using server::Outcome;
using test::FakePolicy;
using test::request_with_prompt;

namespace {

std::string prompt_of(const Outcome& outcome) { return std::get<std::string>(*outcome.answer.find("actions")); }

server::BatchInferFunction one_by_one_of(FakePolicy& policy) {
  return server::one_by_one([&](const protocol::Dict& request) { return policy.infer(request); });
}

server::BatchInferFunction together(FakePolicy& policy) {
  return [&](const std::vector<protocol::Dict>& requests) { return policy.infer_together(requests); };
}

InferenceWorker::ReadRequest reading(const std::string& prompt) {
  return [prompt] { return request_with_prompt(prompt); };
}

// Submits requests and keeps what comes of them in that order: the answer, or "a failed".
class Submitter {
 public:
  explicit Submitter(InferenceWorker& worker) : worker_(worker) {}

  InferenceWorker::Ticket submit(const std::string& prompt) {
    ++submitted_;
    return worker_.submit(reading(prompt), [this, prompt](const Outcome& outcome) {
      const std::lock_guard lock(mutex_);
      ended_.push_back(outcome.error ? prompt + " failed" : prompt_of(outcome));
      infer_ms_.push_back(outcome.infer_ms);
      changed_.notify_all();
    });
  }
  void forget_one() { --submitted_; }  // it was taken back

  std::vector<std::string> wait_for_all() {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, test::patience, [this] { return ended_.size() == submitted_; }));
    return ended_;
  }
  std::vector<double> infer_ms() {
    const std::lock_guard lock(mutex_);
    return infer_ms_;
  }

 private:
  InferenceWorker& worker_;
  std::size_t submitted_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> ended_;
  std::vector<double> infer_ms_;
};

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("requests are inferred one after the other in the order of submission", "[worker]") {
  FakePolicy policy;
  std::vector<std::string> answered;
  std::promise<void> last;
  {
    InferenceWorker worker(one_by_one_of(policy));
    for (const char* prompt : {"wait", "a", "b", "c"}) {
      worker.submit(reading(prompt), [&](const Outcome& outcome) {
        answered.push_back(prompt_of(outcome));
        if (answered.size() == 4) last.set_value();
      });
    }
    policy.release();
    REQUIRE(last.get_future().wait_for(test::patience) == std::future_status::ready);
  }
  CHECK(answered == std::vector<std::string>{"wait", "a", "b", "c"});
}

TEST_CASE("an exception is the request's outcome and the worker continues", "[worker]") {
  FakePolicy policy;
  InferenceWorker worker(one_by_one_of(policy));
  std::promise<Outcome> failed;
  std::promise<Outcome> good;
  // Moved, so that the exception has one owner: the thread sanitizer does not see how its owners are counted.
  worker.submit(reading("fail"), [&](Outcome outcome) { failed.set_value(std::move(outcome)); });
  worker.submit(reading("a"), [&](Outcome outcome) { good.set_value(std::move(outcome)); });
  CHECK_THROWS_WITH(std::rethrow_exception(failed.get_future().get().error), "'prompt': the policy was told to fail");
  CHECK(prompt_of(good.get_future().get()) == "a");
}

TEST_CASE("a request can be withdrawn until it starts", "[worker]") {
  FakePolicy policy;
  std::promise<void> done;
  {
    InferenceWorker worker(one_by_one_of(policy));
    const auto running = worker.submit(reading("wait"), [&](const Outcome&) { done.set_value(); });
    const auto waiting = worker.submit(reading("never"), [](const Outcome&) { FAIL("it was taken back"); });
    policy.wait_for_starts(1);
    CHECK(worker.withdraw(waiting));
    CHECK_FALSE(worker.withdraw(waiting));
    CHECK_FALSE(worker.withdraw(running));
    policy.release();
    REQUIRE(done.get_future().wait_for(test::patience) == std::future_status::ready);
  }
  CHECK(policy.wait_for_starts(1) == std::vector<std::string>{"wait"});
}

TEST_CASE("the worker's destructor finishes the running request and drops the waiting ones", "[worker]") {
  FakePolicy policy;
  std::vector<std::string> answered;
  std::future<void> releasing;
  {
    InferenceWorker worker(one_by_one_of(policy));
    for (const char* prompt : {"wait", "dropped"}) {
      worker.submit(reading(prompt), [&](const Outcome& outcome) { answered.push_back(prompt_of(outcome)); });
    }
    policy.wait_for_starts(1);
    releasing = std::async(std::launch::async, [&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the worker's end has begun
      policy.release();
    });
  }
  CHECK(answered == std::vector<std::string>{"wait"});
}

TEST_CASE("waiting requests are inferred together, in order, up to the limit", "[worker][batch]") {
  FakePolicy policy;
  InferenceWorker worker(together(policy), 3);
  Submitter client(worker);
  client.submit("wait");  // nothing else waits: it goes alone and at once
  policy.wait_for_starts(1);
  for (const char* prompt : {"a", "b", "c", "d", "e"}) client.submit(prompt);
  policy.release();
  CHECK(client.wait_for_all() == Texts{"wait", "a", "b", "c", "d", "e"});
  CHECK(policy.batches() == Texts{"wait", "a b c", "d e"});
  const std::vector<double> infer_ms = client.infer_ms();
  CHECK(infer_ms[1] == infer_ms[3]);  // of the whole batch
  client.submit("f");
  CHECK(client.wait_for_all().back() == "f");
}

TEST_CASE("a batch of one is the default", "[worker][batch]") {
  FakePolicy policy;
  InferenceWorker worker(together(policy));
  Submitter client(worker);
  client.submit("wait");
  policy.wait_for_starts(1);
  client.submit("a");
  client.submit("b");
  policy.release();
  client.wait_for_all();
  CHECK(policy.batches() == Texts{"wait", "a", "b"});
}

TEST_CASE("one bad request of a batch fails alone", "[worker][batch]") {
  FakePolicy policy;
  InferenceWorker worker(together(policy), 8);
  Submitter client(worker);
  client.submit("wait");
  policy.wait_for_starts(1);
  for (const char* prompt : {"a", "fail", "b"}) client.submit(prompt);
  policy.release();
  CHECK(client.wait_for_all() == Texts{"wait", "a", "fail failed", "b"});
  CHECK(policy.batches() == Texts{"wait", "a fail b"});
}

TEST_CASE("an exception of the function, or a missing answer, is the outcome of the whole batch", "[worker][batch]") {
  FakePolicy policy;
  InferenceWorker worker(
      [&](const std::vector<protocol::Dict>& requests) {
        const std::size_t count = requests.size();
        auto outcomes = policy.infer_together(requests);
        if (count == 2) throw std::runtime_error("the model failed");
        if (count == 3) outcomes.pop_back();
        return outcomes;
      },
      3);
  Submitter client(worker);
  client.submit("wait");
  policy.wait_for_starts(1);
  for (const char* prompt : {"a", "b", "c", "d", "e"}) client.submit(prompt);
  policy.release();
  CHECK(client.wait_for_all() == Texts{"wait", "a failed", "b failed", "c failed", "d failed", "e failed"});
  client.submit("f");
  CHECK(client.wait_for_all().back() == "f");
}

TEST_CASE("a withdrawn request is in no batch", "[worker][batch]") {
  FakePolicy policy;
  InferenceWorker worker(together(policy), 3);
  Submitter client(worker);
  client.submit("wait");
  policy.wait_for_starts(1);
  client.submit("a");
  const auto gone = client.submit("b");
  for (const char* prompt : {"c", "d", "e"}) client.submit(prompt);
  CHECK(worker.withdraw(gone));
  client.forget_one();
  policy.release();
  CHECK(client.wait_for_all() == Texts{"wait", "a", "c", "d", "e"});
  CHECK(policy.batches() == Texts{"wait", "a c d", "e"});
}

TEST_CASE("the worker's destructor finishes the running batch", "[worker][batch]") {
  FakePolicy policy;
  Texts answered;
  std::promise<void> queued;
  std::future<void> releasing;
  {
    InferenceWorker worker(together(policy), 2);
    worker.submit(reading("first"), [&](const Outcome&) { queued.get_future().wait(); });
    policy.wait_for_starts(1);
    for (const char* prompt : {"wait", "b", "dropped"}) {
      worker.submit(reading(prompt), [&](const Outcome& outcome) { answered.push_back(prompt_of(outcome)); });
    }
    queued.set_value();
    policy.wait_for_starts(2);
    releasing = std::async(std::launch::async, [&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the worker's end has begun
      policy.release();
    });
  }
  CHECK(answered == Texts{"wait", "b"});
  CHECK(policy.batches() == Texts{"first", "wait b"});
}

TEST_CASE("a request is decoded at its turn, and one that cannot be decoded fails alone", "[worker]") {
  FakePolicy policy;
  std::atomic<int> reads = 0;
  std::promise<Outcome> bad, good;
  InferenceWorker worker(together(policy), /*max_batch=*/3);
  worker.submit(reading("wait"), [](const Outcome&) {});
  policy.wait_for_starts(1);
  worker.submit(
      [&]() -> std::optional<protocol::Dict> {
        ++reads;
        throw std::runtime_error("unreadable");
      },
      [&](Outcome outcome) { bad.set_value(std::move(outcome)); });
  worker.submit(
      [&] {
        ++reads;
        return request_with_prompt("good");
      },
      [&](Outcome outcome) { good.set_value(std::move(outcome)); });
  CHECK(reads == 0);
  policy.release();
  const Outcome unread = bad.get_future().get();
  CHECK_FALSE(unread.was_read);
  CHECK_THROWS_WITH(std::rethrow_exception(unread.error), "unreadable");
  const Outcome answered = good.get_future().get();
  CHECK(answered.was_read);
  CHECK(prompt_of(answered) == "good");
  CHECK(policy.batches() == std::vector<std::string>{"wait", "good"});
}

TEST_CASE("a request that needs no model has its turn, without a call", "[worker]") {
  FakePolicy policy;
  std::promise<Outcome> empty, good;
  InferenceWorker worker(together(policy), /*max_batch=*/3);
  worker.submit(reading("wait"), [](const Outcome&) {});
  policy.wait_for_starts(1);
  worker.submit([] { return std::nullopt; }, [&](Outcome outcome) { empty.set_value(std::move(outcome)); });
  worker.submit(reading("good"), [&](Outcome outcome) { good.set_value(std::move(outcome)); });
  policy.release();
  const Outcome nothing = empty.get_future().get();
  CHECK(nothing.has_nothing_to_infer);
  CHECK(nothing.was_read);
  CHECK(nothing.error == nullptr);
  CHECK_FALSE(good.get_future().get().has_nothing_to_infer);
  CHECK(policy.batches() == std::vector<std::string>{"wait", "good"});
}

TEST_CASE("an outcome says when the model's thread took the request and how long decoding took", "[worker]") {
  using namespace std::chrono_literals;
  FakePolicy policy;
  std::promise<Outcome> done;
  InferenceWorker worker(together(policy), /*max_batch=*/2);
  worker.submit(reading("wait"), [](const Outcome&) {});
  policy.wait_for_starts(1);
  const auto submitted = std::chrono::steady_clock::now();
  worker.submit(
      [] {
        std::this_thread::sleep_for(30ms);
        return request_with_prompt("slow to decode");
      },
      [&](Outcome outcome) { done.set_value(std::move(outcome)); });
  std::this_thread::sleep_for(20ms);
  policy.release();
  const Outcome outcome = done.get_future().get();
  CHECK(outcome.started - submitted >= 20ms);
  CHECK(outcome.decode_ms >= 30);
  CHECK(std::chrono::steady_clock::now() - outcome.started >= 30ms);
}

TEST_CASE("the warm-up comes first, on the worker's thread, and its failure is the constructor's", "[worker]") {
  std::thread::id warmed, inferred;
  std::promise<void> done;
  {
    InferenceWorker worker(server::one_by_one([&](const protocol::Dict&) {
                             inferred = std::this_thread::get_id();
                             return protocol::Dict();
                           }),
                           1, [&] { warmed = std::this_thread::get_id(); });
    CHECK(warmed != std::thread::id());
    worker.submit(reading("a"), [&](const Outcome&) { done.set_value(); });
    done.get_future().wait();
  }
  CHECK(inferred == warmed);
  CHECK_THROWS_WITH(InferenceWorker(server::one_by_one({}), 1, [] { throw std::runtime_error("no memory"); }),
                    "no memory");
}

TEST_CASE("faults of the model are counted until it answers", "[worker]") {
  enum class What { answers, faults, throws, refuses };
  std::atomic<What> next = What::answers;
  InferenceWorker worker([&](const std::vector<protocol::Dict>& requests) {
    if (next == What::throws) throw std::runtime_error("the call failed");
    std::vector<Outcome> outcomes(requests.size());
    if (next != What::answers) outcomes[0].error = std::make_exception_ptr(std::runtime_error("failed"));
    outcomes[0].is_fault_of_model = next == What::faults;
    return outcomes;
  });
  const auto after = [&](What what) {
    next = what;
    std::promise<void> done;
    worker.submit(reading("a"), [&](const Outcome&) { done.set_value(); });
    done.get_future().wait();
    return worker.faults_in_a_row();
  };
  CHECK(after(What::refuses) == 0);
  CHECK(after(What::faults) == 1);
  CHECK(after(What::refuses) == 1);
  CHECK(after(What::throws) == 2);
  CHECK(after(What::answers) == 0);
}
