// Answered requests as files that `pi0 infer` reads back: 000000.request.msgpack with the noise
// that was used, 000000.response.msgpack without timings, and so on. Knows no model and no sockets.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <mutex>
#include <thread>

#include "protocol/value.h"

namespace pi0::server {

struct RecorderOptions {
  std::filesystem::path folder;                              // empty: nothing is recorded
  std::uint64_t max_folder_bytes = std::uint64_t{10} << 30;  // of all recordings in the folder
  std::size_t max_waiting_bytes = std::size_t{256} << 20;    // of memory, until they are written
};

// Throws std::runtime_error when no recorder could work with this folder. Leaves nothing behind.
void check_recording_folder(const std::filesystem::path& folder);

class Recorder {
 public:
  // Makes the folder if there is none, and numbers on after the recordings that are in it. Throws
  // std::runtime_error when it cannot be written or another recorder has it.
  explicit Recorder(RecorderOptions options);
  ~Recorder();  // writes what waits

  // From any thread, and never waits for the disk: what cannot be recorded is a line in the log.
  // `noise` becomes the request's field of that name unless it has one.
  void record(protocol::Dict request, protocol::NdArray noise, const protocol::Dict& answer);

 private:
  struct Recording {
    protocol::Dict request;
    protocol::Dict response;
    std::size_t bytes;  // of memory
  };
  class Folder;

  void work();
  void write(Recording recording);

  const RecorderOptions options_;
  std::unique_ptr<Folder> folder_;     // the thread's, as the next; null after a failure: open it anew
  std::uint64_t failures_ = 0;         // since the last success
  std::atomic<bool> is_full_ = false;  // recording is over

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Recording> waiting_;  // guarded by mutex_, as are the next three
  std::size_t waiting_bytes_ = 0;  // the recording that is being written included
  std::uint64_t dropped_ = 0;      // since writing could not keep up
  bool stopping_ = false;
  std::thread thread_;  // last: starts when the rest is there
};

}  // namespace pi0::server
