// The one thread that owns the model. Requests of all connections are inferred in the order in
// which they came. Knows nothing of sockets.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "protocol/value.h"

namespace pi0::server {

// Called on one thread, never twice at a time. May throw std::exception: its what() is what the
// client reads. Owns the request, so that it can be kept without a copy of its pictures.
using InferFunction = std::function<protocol::Dict(protocol::Dict request)>;

class InferenceWorker {
 public:
  struct Outcome {
    protocol::Dict answer;
    std::exception_ptr error;  // null when there is an answer
    double infer_ms = 0;
  };
  using Done = std::function<void(Outcome)>;  // called once, on the worker's thread
  using Ticket = std::uint64_t;

  explicit InferenceWorker(InferFunction infer);
  ~InferenceWorker();  // finishes the inference that runs, drops those that wait

  Ticket submit(protocol::Dict request, Done done);

  // Takes a request back. True when it had not started: its Done will not be called.
  bool withdraw(Ticket ticket);

 private:
  struct Job {
    Ticket ticket;
    protocol::Dict request;
    Done done;
  };

  void work();

  const InferFunction infer_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> waiting_;  // guarded by mutex_, as are the next two
  Ticket last_ticket_ = 0;
  bool stopping_ = false;
  std::thread thread_;  // last: starts when the rest is there
};

}  // namespace pi0::server
