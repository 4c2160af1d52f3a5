// The one thread that owns the model. Requests of all connections are inferred in the order in
// which they came, several at once where that is asked for. Knows nothing of sockets.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "protocol/value.h"

namespace pi0::server {

// Called on one thread, never twice at a time. May throw std::exception: its what() is what the
// client reads. Owns the request, so that it can be kept without a copy of its pictures.
using InferFunction = std::function<protocol::Dict(protocol::Dict request)>;

// What became of a request.
struct Outcome {
  protocol::Dict answer;
  std::exception_ptr error = nullptr;  // null when there is an answer
  double infer_ms = 0;                 // the worker fills this in: how long the function took
};

// The same for requests that waited together: an outcome for each, in their order. What it throws
// becomes the error of all.
using BatchInferFunction =
    std::function<std::vector<Outcome>(std::vector<protocol::Dict> requests)>;

BatchInferFunction one_by_one(InferFunction infer);

class InferenceWorker {
 public:
  using Done = std::function<void(Outcome)>;  // called once, on the worker's thread
  using Ticket = std::uint64_t;

  // Gives `infer` up to `max_batch` of the requests that wait; never waits for more to come.
  explicit InferenceWorker(BatchInferFunction infer, std::size_t max_batch = 1);
  ~InferenceWorker();  // finishes the inference that runs, drops the requests that wait

  Ticket submit(protocol::Dict request, Done done);

  // Takes a request back. True when it had not started: its Done will not be called.
  bool withdraw(Ticket ticket);

  std::size_t waiting_count() const;
  bool is_busy() const;  // an inference runs, or its Done do

 private:
  struct Job {
    Ticket ticket;
    protocol::Dict request;
    Done done;
  };

  void work();
  std::vector<Outcome> outcomes_of(std::vector<protocol::Dict> requests) const;

  const BatchInferFunction infer_;
  const std::size_t max_batch_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> waiting_;  // guarded by mutex_, as are the next three
  Ticket last_ticket_ = 0;
  bool is_busy_ = false;
  bool stopping_ = false;
  std::thread thread_;  // last: starts when the rest is there
};

}  // namespace pi0::server
