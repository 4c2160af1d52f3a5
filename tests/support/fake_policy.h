// A policy without a model: echoes the request's prompt, waits when told to, throws when told to.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "protocol/value.h"
#include "server/inference_worker.h"
#include "support/patience.h"

namespace pi0::test {

inline protocol::Dict request_with_prompt(std::string prompt) {
  protocol::Dict request;
  request.set("prompt", std::move(prompt));
  return request;
}

class FakePolicy {
 public:
  // Prompt "wait": blocks until release(). Prompt "fail": throws. Any other: echoed as "actions".
  protocol::Dict infer(const protocol::Dict& request) {
    const std::string prompt = std::get<std::string>(*request.find("prompt"));
    std::unique_lock lock(mutex_);
    started_.push_back(prompt);
    changed_.notify_all();
    if (prompt == "wait") wait(lock, [this] { return released_; });
    if (prompt == "fail") throw std::runtime_error("'prompt': the policy was told to fail");
    protocol::Dict answer;
    answer.set("actions", prompt);
    return answer;
  }

  // The same for requests that waited together.
  std::vector<server::Outcome> infer_together(std::vector<protocol::Dict> requests) {
    std::string prompts;
    for (const protocol::Dict& request : requests) {
      prompts += (prompts.empty() ? "" : " ") + std::get<std::string>(*request.find("prompt"));
    }
    {
      const std::lock_guard lock(mutex_);
      batches_.push_back(prompts);
    }
    const auto infer_one = [this](const protocol::Dict& request) { return infer(request); };
    return server::one_by_one(infer_one)(std::move(requests));
  }

  std::vector<std::string> batches() {  // the prompts of each, as "a b c"
    const std::lock_guard lock(mutex_);
    return batches_;
  }

  void release() {
    const std::lock_guard lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }

  // The prompts so far, once there are at least that many.
  std::vector<std::string> wait_for_starts(std::size_t count) {
    std::unique_lock lock(mutex_);
    wait(lock, [&] { return started_.size() >= count; });
    return started_;
  }

 private:
  template <class Condition>
  void wait(std::unique_lock<std::mutex>& lock, Condition condition) {
    if (!changed_.wait_for(lock, patience, condition)) {
      throw std::runtime_error("the test's policy waited in vain");
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> started_;
  std::vector<std::string> batches_;
  bool released_ = false;
};

}  // namespace pi0::test
