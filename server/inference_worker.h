// The one thread that owns the model. Requests of all connections are inferred in the order in
// which they came, several at once where that is asked for. Knows nothing of sockets.
#pragma once

#include <atomic>
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
  bool is_fault_of_model = false;      // the error is not the request's, as when memory ends
  double infer_ms = 0;                 // the worker fills this in, and the next: how long the function took
  bool was_read = true;
};

// The same for requests that waited together: an outcome for each, in their order. What it throws
// becomes the error of all, and is the model's fault.
using BatchInferFunction = std::function<std::vector<Outcome>(std::vector<protocol::Dict> requests)>;

BatchInferFunction one_by_one(InferFunction infer);

class InferenceWorker {
 public:
  using Done = std::function<void(Outcome)>;            // called once, on the worker's thread
  using ReadRequest = std::function<protocol::Dict()>;  // likewise, when its turn has come; may throw
  using Ticket = std::uint64_t;

  // Gives `infer` up to `max_batch` of the requests that wait; never waits for more to come. Before all others
  // `warm_up` runs on its thread, if there is one, and what it throws is thrown here.
  explicit InferenceWorker(BatchInferFunction infer, std::size_t max_batch = 1,
                           const std::function<void()>& warm_up = {});
  ~InferenceWorker();  // finishes the inference that runs, drops the requests that wait

  // `bytes` are the request's, as it came. After large ones, what was freed goes back to the system.
  Ticket submit(ReadRequest read, Done done, std::size_t bytes = 0);

  // Takes a request back. True when it had not started: its Done will not be called.
  bool withdraw(Ticket ticket);

  std::size_t waiting_count() const;
  bool is_busy() const;  // an inference runs, or its Done do

  // Calls of the model without an answer and with a fault of the model, since the last one with an answer.
  std::size_t faults_in_a_row() const { return faults_in_a_row_; }
  void count_fault() { ++faults_in_a_row_; }  // of a request that could not even come to it

 private:
  struct Job {
    Ticket ticket;
    ReadRequest read;
    Done done;
    std::size_t bytes;
  };

  void work();
  std::vector<Outcome> outcomes_of(std::vector<ReadRequest> reads);
  std::vector<Outcome> inferred(std::vector<protocol::Dict> requests);

  const BatchInferFunction infer_;
  const std::size_t max_batch_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> waiting_;  // guarded by mutex_, as are the next three
  Ticket last_ticket_ = 0;
  bool is_busy_ = false;
  bool stopping_ = false;
  std::atomic<std::size_t> faults_in_a_row_ = 0;
  std::thread thread_;  // last: starts when the rest is there
};

}  // namespace pi0::server
