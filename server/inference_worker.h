// The thread that owns the model. It runs the requests of all connections in the order of their arrival, one by one or
// in batches. Knows no sockets.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "protocol/value.h"

namespace pi0::server {

// Called on the worker's thread only. May throw std::exception; the client is sent its what(). Takes the request by
// value, so that it can be kept without copying its images.
using InferFunction = std::function<protocol::Dict(protocol::Dict request)>;

// The result of a request.
struct Outcome {
  protocol::Dict answer;
  std::size_t observations = 1;        // that it answers
  std::exception_ptr error = nullptr;  // null when there is an answer
  bool is_fault_of_model = false;      // not the request's fault: out of memory, for example
  // The rest is set by the worker.
  double infer_ms = 0;                                 // how long the function took
  double decode_ms = 0;                                // how long ReadRequest took
  std::chrono::steady_clock::time_point started = {};  // when the model's thread took the request
  bool was_read = true;                                // the request could be decoded
  bool has_nothing_to_infer = false;                   // ReadRequest returned nothing
};

// The same for a batch: one outcome per request, in their order. An exception becomes the error of all requests and is
// the model's fault.
using BatchInferFunction = std::function<std::vector<Outcome>(std::vector<protocol::Dict> requests)>;

BatchInferFunction one_by_one(InferFunction infer);  // an exception is the fault of its request

class InferenceWorker {
 public:
  using Done = std::function<void(Outcome)>;  // called once, on the worker's thread
  // Likewise, at the request's turn; may throw std::exception. Nothing: the model is not needed.
  using ReadRequest = std::function<std::optional<protocol::Dict>()>;
  using Ticket = std::uint64_t;

  // Passes up to `max_batch` waiting requests to `infer` and never waits for more. First `warm_up`, if any, runs on the
  // worker's thread; its exceptions are thrown here.
  explicit InferenceWorker(BatchInferFunction infer, std::size_t max_batch = 1,
                           const std::function<void()>& warm_up = {});
  ~InferenceWorker();  // finishes the running inference, drops the waiting requests

  // The other functions may be called from any thread. `bytes` is the size of the encoded request: after large ones
  // freed memory is returned to the system.
  Ticket submit(ReadRequest read, Done done, std::size_t bytes = 0);

  // Cancels a request. True when it had not started; its Done is not called then.
  bool withdraw(Ticket ticket);

  std::size_t waiting_count() const;
  bool is_busy() const;  // an inference or its Done functions run

  // Batches with a fault of the model and without any answer, since the last answer.
  std::size_t faults_in_a_row() const { return faults_in_a_row_; }
  void count_fault() { ++faults_in_a_row_; }  // for a request that failed before it could be submitted

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
  std::thread thread_;  // last: uses the members above
};

}  // namespace pi0::server
