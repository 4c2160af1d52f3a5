#include "server/inference_worker.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>

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

InferenceWorker::InferenceWorker(BatchInferFunction infer, std::size_t max_batch)
    : infer_(std::move(infer)), max_batch_(max_batch), thread_([this] { work(); }) {}

InferenceWorker::~InferenceWorker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

InferenceWorker::Ticket InferenceWorker::submit(protocol::Dict request, Done done) {
  const std::lock_guard lock(mutex_);
  waiting_.push_back({++last_ticket_, std::move(request), std::move(done)});
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
    std::vector<protocol::Dict> requests;
    std::vector<Done> done;
    while (requests.size() < max_batch_ && !waiting_.empty()) {
      requests.push_back(std::move(waiting_.front().request));
      done.push_back(std::move(waiting_.front().done));
      waiting_.pop_front();
    }
    is_busy_ = true;
    lock.unlock();

    std::vector<Outcome> outcomes = outcomes_of(std::move(requests));
    for (std::size_t i = 0; i < done.size(); ++i) done[i](std::move(outcomes[i]));
    done.clear();  // before the wait for the next requests: a Done may own its connection
    lock.lock();
    is_busy_ = false;
  }
}

std::vector<Outcome> InferenceWorker::outcomes_of(std::vector<protocol::Dict> requests) const {
  const std::size_t count = requests.size();
  std::vector<Outcome> outcomes;
  const auto start = std::chrono::steady_clock::now();
  try {
    outcomes = infer_(std::move(requests));
    if (outcomes.size() != count) throw std::logic_error("the policy did not answer each request");
  } catch (const std::exception&) {
    outcomes.assign(count, Outcome{{}, std::current_exception()});
  }
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  for (Outcome& outcome : outcomes) outcome.infer_ms = took.count();
  return outcomes;
}

}  // namespace pi0::server
