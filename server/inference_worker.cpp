#include "server/inference_worker.h"

#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <stdexcept>
#include <utility>

#include "server/elapsed.h"

namespace pi0::server {

BatchInferFunction one_by_one(InferFunction infer) {
  return [infer = std::move(infer)](std::vector<protocol::Dict> requests) {
    std::vector<Outcome> outcomes(requests.size());
    for (std::size_t i = 0; i < requests.size(); ++i) {
      try {
        outcomes[i].answer = infer(std::move(requests[i]));
      } catch (const std::exception&) {
        outcomes[i].error = std::current_exception();
      }
    }
    return outcomes;
  };
}

InferenceWorker::InferenceWorker(BatchInferFunction infer, std::size_t max_batch, const std::function<void()>& warm_up)
    : infer_(std::move(infer)), max_batch_(max_batch) {
  std::promise<void> is_warm;
  std::future<void> warm = is_warm.get_future();
  // The warm-up runs on this thread because libraries keep memory and threads per calling thread.
  thread_ = std::thread([this, &warm_up, is_warm = std::move(is_warm)]() mutable {
    try {
      if (warm_up) warm_up();
      is_warm.set_value();
    } catch (...) {
      is_warm.set_exception(std::current_exception());
      return;
    }
    work();
  });
  try {
    warm.get();
  } catch (...) {
    thread_.join();
    throw;
  }
}

InferenceWorker::~InferenceWorker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

InferenceWorker::Ticket InferenceWorker::submit(ReadRequest read, Done done, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  waiting_.push_back({++last_ticket_, std::move(read), std::move(done), bytes});
  changed_.notify_one();
  return last_ticket_;
}

bool InferenceWorker::withdraw(Ticket ticket) {
  const std::lock_guard lock(mutex_);
  return std::erase_if(waiting_, [&](const Job& job) { return job.ticket == ticket; }) > 0;
}

std::size_t InferenceWorker::waiting_count() const {
  const std::lock_guard lock(mutex_);
  return waiting_.size();
}

bool InferenceWorker::is_busy() const {
  const std::lock_guard lock(mutex_);
  return is_busy_;
}

void InferenceWorker::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    std::vector<ReadRequest> reads;
    std::vector<Done> done;
    std::size_t bytes = 0;
    while (reads.size() < max_batch_ && !waiting_.empty()) {
      reads.push_back(std::move(waiting_.front().read));
      done.push_back(std::move(waiting_.front().done));
      bytes += waiting_.front().bytes;
      waiting_.pop_front();
    }
    is_busy_ = true;
    lock.unlock();

    std::vector<Outcome> outcomes = outcomes_of(std::move(reads));
    for (std::size_t i = 0; i < done.size(); ++i) done[i](std::move(outcomes[i]));
    done.clear();                                         // before waiting again: a Done may keep its connection alive
    constexpr std::size_t large = std::size_t{32} << 20;  // far above a robot's request
    if (bytes > large) ::malloc_trim(0);
    lock.lock();
    is_busy_ = false;
  }
}

std::vector<Outcome> InferenceWorker::outcomes_of(std::vector<ReadRequest> reads) {
  std::vector<Outcome> outcomes(reads.size());
  std::vector<protocol::Dict> requests;
  std::vector<std::size_t> places;  // of requests, in outcomes
  const auto started = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < reads.size(); ++i) {
    const auto start = std::chrono::steady_clock::now();
    try {
      std::optional<protocol::Dict> request = reads[i]();
      outcomes[i].has_nothing_to_infer = !request;
      if (request) {
        requests.push_back(*std::move(request));
        places.push_back(i);
      }
    } catch (const std::exception&) {
      outcomes[i].error = std::current_exception();
      outcomes[i].was_read = false;
    }
    reads[i] = nullptr;  // frees the encoded bytes: the decoded request takes as much again
    outcomes[i].decode_ms = ms_since(start);
    outcomes[i].started = started;
  }
  if (requests.empty()) return outcomes;
  std::vector<Outcome> results = inferred(std::move(requests));
  for (std::size_t i = 0; i < places.size(); ++i) {
    Outcome& outcome = outcomes[places[i]];
    results[i].decode_ms = outcome.decode_ms;
    results[i].started = outcome.started;
    outcome = std::move(results[i]);
  }
  return outcomes;
}

std::vector<Outcome> InferenceWorker::inferred(std::vector<protocol::Dict> requests) {
  const std::size_t count = requests.size();
  std::vector<Outcome> outcomes;
  const auto start = std::chrono::steady_clock::now();
  try {
    outcomes = infer_(std::move(requests));
    if (outcomes.size() != count) throw std::logic_error("the policy did not return one answer per request");
  } catch (const std::exception&) {
    outcomes.assign(count, {.answer = {}, .error = std::current_exception(), .is_fault_of_model = true});
  }
  const double took_ms = ms_since(start);
  for (Outcome& outcome : outcomes) outcome.infer_ms = took_ms;
  if (std::ranges::any_of(outcomes, [](const Outcome& outcome) { return outcome.error == nullptr; })) {
    faults_in_a_row_ = 0;
  } else if (std::ranges::any_of(outcomes, &Outcome::is_fault_of_model)) {
    ++faults_in_a_row_;
  }
  return outcomes;
}

}  // namespace pi0::server
