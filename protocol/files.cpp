#include "protocol/files.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "protocol/msgpack_numpy.h"

namespace pi0::protocol {
namespace {

namespace fs = std::filesystem;

// Only nesting could do harm: everything else is at most as large as the file.
constexpr auto any = std::numeric_limits<std::size_t>::max();
const DecodeLimits file_limits{.max_depth = 1024, .max_values = any, .max_string_bytes = any, .max_array_bytes = any};

[[noreturn]] void refuse(const fs::path& file, const std::string& what) {
  throw std::runtime_error(file.string() + ": " + what);
}

[[noreturn]] void refuse_writing(const fs::path& file, int error) {
  refuse(file, std::string("cannot be written: ") + std::strerror(error));
}

// Where a file's content is written, and how.
struct Place {
  fs::path target;
  bool in_place = false;
  std::optional<mode_t> mode = {};  // of the file that is replaced
};

// A link such as /proc/self/fd/1 to a file that some process has open. Its target's name may be stale, so the file can
// only be written through the link.
bool is_open_file(const fs::path& link) {
  std::error_code none;
  return fs::canonical(link.parent_path(), none).native().starts_with("/proc/");
}

// Throws when the file cannot be written.
Place place_of(const fs::path& file) {
  struct stat status {};
  const bool exists = ::stat(file.c_str(), &status) == 0;
  if (!exists && errno != ENOENT) refuse_writing(file, errno);
  if (exists && S_ISDIR(status.st_mode)) refuse(file, "is a folder");
  if (exists && (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode))) return {file, true};
  if (exists && !S_ISREG(status.st_mode)) refuse(file, "is neither a file nor a pipe nor a character device");
  constexpr int max_links = 40;  // the kernel's
  Place place{file};
  for (int links = 0; fs::is_symlink(fs::symlink_status(place.target)); ++links) {
    if (links == max_links) refuse_writing(file, ELOOP);
    if (is_open_file(place.target)) return {file, true};
    place.target = place.target.parent_path() / fs::read_symlink(place.target);  // an absolute one replaces all
  }
  if (exists) place.mode = status.st_mode & 0777;
  return place;
}

// The temporary files of this process.
struct Unfinished {
  std::mutex mutex;
  std::set<fs::path> files;
};

Unfinished& unfinished() {
  static Unfinished& ours = *new Unfinished;  // never destroyed: a thread may still write when static objects are
  return ours;
}

// The name is random and the file must be new (O_EXCL), so nobody can prepare a file or link there to be overwritten.
std::pair<fs::path, int> make_temporary(const Place& place) {
  constexpr std::size_t longest = 200;  // of the 255 bytes that a name may have
  const std::string name = place.target.filename().string().substr(0, longest);
  for (;;) {
    std::random_device random;
    std::array<char, 17> digits{};
    std::snprintf(digits.data(), digits.size(), "%08x%08x", random(), random());
    fs::path temporary = place.target.parent_path() / (name + "." + digits.data() + ".part");
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    const std::lock_guard lock(unfinished().mutex);
    const int descriptor = ::open(temporary.c_str(), flags, place.mode.value_or(0666));
    if (descriptor >= 0) unfinished().files.insert(temporary);
    if (descriptor >= 0 || errno != EEXIST) return {std::move(temporary), descriptor};
  }
}

// Waits a moment for a pipe's reader, which may be about to open it. A pipe that nobody reads must not block forever.
int open_in_place(const fs::path& file) {
  constexpr std::chrono::milliseconds patience{1000}, pause{10};
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    const int descriptor = ::open(file.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (descriptor >= 0) return descriptor;
    if (errno == EINTR) continue;
    if (errno != ENXIO) refuse_writing(file, errno);
    if (std::chrono::steady_clock::now() > deadline) refuse(file, "cannot be written: the pipe has no reader");
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace

WholeFile::WholeFile(fs::path file) : file_(std::move(file)) {
  const Place place = place_of(file_);
  target_ = place.target;
  if (place.in_place) {
    descriptor_ = open_in_place(file_);
    return;
  }
  std::tie(temporary_, descriptor_) = make_temporary(place);
  if (descriptor_ < 0) refuse_writing(file_, errno);
  if (place.mode) ::fchmod(descriptor_, *place.mode);  // open() applied the umask; fails where there are no modes
}

WholeFile::~WholeFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  if (temporary_.empty()) return;
  const std::lock_guard lock(unfinished().mutex);
  ::unlink(temporary_.c_str());
  unfinished().files.erase(temporary_);
}

void WholeFile::write(const void* data, std::size_t size) {
  const auto* rest = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(descriptor_, rest, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) {
      constexpr int patience_ms = 5000;
      pollfd room{descriptor_, POLLOUT, 0};
      if (::poll(&room, 1, patience_ms) == 0) refuse(file_, "cannot be written: its reader has stopped reading");
      continue;
    }
    if (written < 0) refuse_writing(file_, errno);
    rest += written;
    size -= static_cast<std::size_t>(written);
  }
}

void WholeFile::keep() {
  // Before the rename: otherwise a power cut could leave the new name without content. EINVAL: no fsync on this file
  // system.
  if (!temporary_.empty() && ::fsync(descriptor_) != 0 && errno != EINVAL) refuse_writing(file_, errno);
  if (!temporary_.empty()) {
    const std::lock_guard lock(unfinished().mutex);
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) refuse_writing(file_, errno);
    unfinished().files.erase(temporary_);
    temporary_.clear();
  }
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) refuse_writing(file_, errno);
}

void remove_unfinished_files() {
  unfinished().mutex.lock();  // and never unlocked: no thread may make another one
  for (const fs::path& file : unfinished().files) ::unlink(file.c_str());
}

void write_whole(const fs::path& file, std::string_view content) {
  WholeFile whole(file);
  whole.write(content.data(), content.size());
  whole.keep();
}

void write_whole(const fs::path& file, std::span<const std::uint8_t> content) {
  write_whole(file, std::string_view(reinterpret_cast<const char*>(content.data()), content.size()));
}

void check_writable(const fs::path& file) {
  // Opening and closing a pipe would look like the end of the data to its reader.
  if (!place_of(file).in_place) return void(WholeFile(file));
  if (::access(file.c_str(), W_OK) != 0) refuse_writing(file, errno);
}

Dict read_message(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) throw std::runtime_error(file.string() + ": cannot be opened: " + std::strerror(errno));
  const std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(stream), {}};
  try {
    return decode(bytes, file_limits);
  } catch (const std::exception& error) {
    throw std::runtime_error(file.string() + ": " + error.what());
  }
}

void write_message(const fs::path& file, const Dict& message) { write_whole(file, encode(message)); }

}  // namespace pi0::protocol
