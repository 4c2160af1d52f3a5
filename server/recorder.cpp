#include "server/recorder.h"

#include <fcntl.h>
#include <spdlog/fmt/fmt.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "protocol/files.h"
#include "protocol/msgpack_numpy.h"
#include "protocol/openpi_messages.h"

namespace pi0::server {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view request_ending = ".request.msgpack";
constexpr std::string_view response_ending = ".response.msgpack";

double gib(std::uint64_t bytes) { return static_cast<double>(bytes) / (std::uint64_t{1} << 30); }

// Counts a broken link, which fs::exists() alone would not.
bool is_taken(const fs::path& file) { return fs::exists(fs::symlink_status(file)); }

// The number in a recording's name; nothing for other files.
std::optional<std::uint64_t> number_of(const std::string& name) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  const std::string_view ending(end, name.data() + name.size());
  if (error != std::errc{} || (ending != request_ending && ending != response_ending)) return {};
  return number;
}

std::size_t memory_of(const protocol::Dict& dict);

std::size_t memory_of(const protocol::Value& value) {
  return sizeof(value) + std::visit(
                             [](const auto& held) -> std::size_t {
                               using Held = std::decay_t<decltype(held)>;
                               if constexpr (std::is_same_v<Held, protocol::Dict>) {
                                 return memory_of(held);
                               } else if constexpr (std::is_same_v<Held, protocol::List>) {
                                 std::size_t bytes = 0;
                                 for (const auto& item : held.items) bytes += memory_of(item);
                                 return bytes;
                               } else if constexpr (std::is_same_v<Held, std::string>) {
                                 return held.size();
                               } else if constexpr (requires { held.data.size(); }) {
                                 return held.data.size();
                               } else {
                                 return 0;
                               }
                             },
                             value);
}

std::size_t memory_of(const protocol::Dict& dict) {
  std::size_t bytes = 0;
  for (const auto& [key, value] : dict.entries()) bytes += key.size() + memory_of(value);
  return bytes;
}

// Keeps other recorders out of a folder for as long as it lives.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder)
      : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (descriptor_ < 0) {
      throw std::runtime_error(folder.string() + ": cannot be opened: " + std::strerror(errno));
    }
    // Other errors mean that the file system has no locks; record without.
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
    ::close(descriptor_);
    throw std::runtime_error(folder.string() + ": another server is recording there");
  }
  ~FolderLock() { ::close(descriptor_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace

// The recordings on disk.
class Recorder::Folder {
 public:
  explicit Folder(fs::path path) : path_(std::move(path)), lock_(path_) {
    for (const fs::directory_entry& entry : fs::directory_iterator(path_)) {
      const auto number = number_of(entry.path().filename().string());
      if (!number) continue;
      next_ = std::max(next_, *number + 1);
      std::error_code gone;
      const std::uintmax_t size = entry.file_size(gone);
      if (!gone) bytes_ += size;
    }
  }

  fs::path next_request() const { return file(request_ending); }
  std::uint64_t bytes() const { return bytes_; }

  // False, and nothing is written, when the folder would then hold more than `max_bytes`.
  bool add(const Recording& recording, std::uint64_t max_bytes) {
    const std::vector<std::uint8_t> request = protocol::encode(recording.request);
    const std::vector<std::uint8_t> response = protocol::encode(recording.response);
    const std::uint64_t bytes = request.size() + response.size();
    if (bytes_ + bytes > max_bytes) return false;
    while (is_taken(file(request_ending)) || is_taken(file(response_ending))) ++next_;
    protocol::write_whole(file(request_ending), request);
    protocol::write_whole(file(response_ending), response);
    bytes_ += bytes;
    ++next_;
    return true;
  }

 private:
  fs::path file(std::string_view ending) const { return path_ / fmt::format("{:06}{}", next_, ending); }

  fs::path path_;
  FolderLock lock_;
  std::uint64_t next_ = 0;   // number of the next recording
  std::uint64_t bytes_ = 0;  // of all recordings
};

void check_recording_folder(const fs::path& folder) {
  fs::path existing = fs::absolute(folder);
  while (!fs::exists(existing)) existing = existing.parent_path();
  protocol::check_writable(existing / "pi0-recording");
}

Recorder::Recorder(RecorderOptions options) : options_(std::move(options)) {
  std::error_code error;
  fs::create_directories(options_.folder, error);
  if (error) {
    throw std::runtime_error(options_.folder.string() + ": cannot be created: " + error.message());
  }
  folder_ = std::make_unique<Folder>(options_.folder);
  protocol::check_writable(folder_->next_request());
  spdlog::info("recording requests and answers, the first as {}; {:.3g} of {:.3g} GiB are used",
               fs::absolute(folder_->next_request()).string(), gib(folder_->bytes()), gib(options_.max_folder_bytes));
  thread_ = std::thread([this] { work(); });
}

Recorder::~Recorder() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
  if (const std::uint64_t lost = dropped_ + failures_; lost > 0) {
    spdlog::warn("recording ends; requests not recorded: {}", lost);
  }
}

void Recorder::record(protocol::Dict request, protocol::NdArray noise, const protocol::Dict& answer) {
  if (is_full_) return;
  if (request.find(protocol::noise_key) == nullptr) {
    request.set(std::string(protocol::noise_key), std::move(noise));
  }
  Recording recording{std::move(request), protocol::without_timing(answer), 0};
  recording.bytes = memory_of(recording.request) + memory_of(recording.response);

  const std::lock_guard lock(mutex_);
  // After an overflow nothing is recorded until everything waiting is written: one gap and one line in the log instead
  // of many.
  const bool is_behind = dropped_ > 0 && waiting_bytes_ > 0;
  if (is_behind || waiting_bytes_ + recording.bytes > options_.max_waiting_bytes) {
    if (dropped_++ == 0) {
      spdlog::warn("recordings cannot be written fast enough: the next requests are not recorded");
    }
    return;
  }
  if (dropped_ > 0) {
    spdlog::warn("requests are recorded again; not recorded: {}", std::exchange(dropped_, 0));
  }
  waiting_bytes_ += recording.bytes;
  waiting_.push_back(std::move(recording));
  changed_.notify_one();
}

void Recorder::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const std::size_t bytes = waiting_.front().bytes;
    {
      const Recording recording = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      write(recording);
    }  // frees the recording before it takes the lock
    lock.lock();
    waiting_bytes_ -= bytes;
  }
}

void Recorder::write(const Recording& recording) {
  if (is_full_) return;
  try {
    if (!folder_) folder_ = std::make_unique<Folder>(options_.folder);
    is_full_ = !folder_->add(recording, options_.max_folder_bytes);
  } catch (const std::exception& error) {
    folder_.reset();
    if (failures_++ == 0) spdlog::warn("a request was not recorded: {}", error.what());
    return;
  }
  if (is_full_) {
    spdlog::warn("{}: recording is over: the limit of {:.3g} GiB is reached", options_.folder.string(),
                 gib(options_.max_folder_bytes));
  } else if (failures_ > 0) {
    spdlog::warn("requests are recorded again; not recorded: {}", std::exchange(failures_, 0));
  }
}

}  // namespace pi0::server
