#include "server/inference_worker.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace pi0::server {

InferenceWorker::InferenceWorker(InferFunction infer)
    : infer_(std::move(infer)), thread_([this] { work(); }) {}

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

void InferenceWorker::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    Job job = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();

    Outcome outcome;
    const auto start = std::chrono::steady_clock::now();
    try {
      outcome.answer = infer_(std::move(job.request));
    } catch (const std::exception&) {
      outcome.error = std::current_exception();
    }
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    outcome.infer_ms = took.count();
    job.done(std::move(outcome));
    lock.lock();
  }
}

}  // namespace pi0::server
