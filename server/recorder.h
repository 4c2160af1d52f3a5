// Writes answered requests as files that `pi0 infer` can replay: 000000.request.msgpack with the noise that was used,
// 000000.response.msgpack without timings, and so on. Knows no model and no sockets.
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
  std::size_t max_waiting_bytes = std::size_t{256} << 20;    // of memory, for recordings not yet written
};

// Throws std::runtime_error when a recorder could not write into this folder. Creates nothing.
void check_recording_folder(const std::filesystem::path& folder);

class Recorder {
 public:
  // Creates the folder if needed, and continues the numbers of the recordings in it. Throws std::runtime_error when the
  // folder cannot be written or another recorder uses it.
  explicit Recorder(RecorderOptions options);
  ~Recorder();  // writes the waiting recordings first

  // Queues a recording; never waits for the disk. The log says what could not be recorded. `noise` becomes the
  // request's field "noise" unless it has one. Any thread may call.
  void record(protocol::Dict request, protocol::NdArray noise, const protocol::Dict& answer);

 private:
  struct Recording {
    protocol::Dict request;
    protocol::Dict response;
    std::size_t bytes;  // of memory
  };
  class Folder;

  void work();
  void write(const Recording& recording);

  const RecorderOptions options_;
  // The recorder thread's. Null after a failure: the folder is opened again for the next recording.
  std::unique_ptr<Folder> folder_;
  std::uint64_t failures_ = 0;         // since the last success; the recorder thread's
  std::atomic<bool> is_full_ = false;  // the limit is reached; nothing more is recorded

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Recording> waiting_;  // guarded by mutex_, as are the next three
  std::size_t waiting_bytes_ = 0;  // of waiting_ and the recording that is being written
  std::uint64_t dropped_ = 0;      // since max_waiting_bytes was reached
  bool stopping_ = false;
  std::thread thread_;  // last: uses the members above
};

}  // namespace pi0::server
