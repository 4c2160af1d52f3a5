#include "server/recorder.h"

#include <spdlog/fmt/fmt.h>
#include <spdlog/sinks/ringbuffer_sink.h>
#include <spdlog/spdlog.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "protocol/files.h"
#include "protocol/msgpack_numpy.h"
#include "protocol/openpi_messages.h"
#include "support/catch.h"
#include "support/fake_policy.h"
#include "support/temporary_folder.h"

using namespace pi0;
using namespace std::chrono_literals;
using protocol::Dict;
using protocol::NdArray;
using server::check_recording_folder;
using server::Recorder;
using server::RecorderOptions;
using test::read_all;
using test::request_with_prompt;
using test::TemporaryFolder;
using test::write_all;
namespace fs = std::filesystem;

namespace {

// What was logged while it lived.
class Log {
 public:
  Log() {
    auto logger = std::make_shared<spdlog::logger>("", sink_);
    logger->set_pattern("%l: %v");
    spdlog::set_default_logger(std::move(logger));
  }
  ~Log() { spdlog::set_default_logger(before_); }

  int count(const std::string& text) const {
    const auto lines = sink_->last_formatted();
    return static_cast<int>(
        std::ranges::count_if(lines, [&](const std::string& line) { return line.find(text) != std::string::npos; }));
  }

 private:
  std::shared_ptr<spdlog::sinks::ringbuffer_sink_mt> sink_ = std::make_shared<spdlog::sinks::ringbuffer_sink_mt>(1000);
  std::shared_ptr<spdlog::logger> before_ = spdlog::default_logger();
};

template <class Condition>
bool soon(Condition condition) {
  for (int i = 0; i < 6000 && !condition(); ++i) std::this_thread::sleep_for(10ms);
  return condition();
}

NdArray noise(std::uint8_t first_byte = 1) { return {{'f', 4}, {1, 2}, {first_byte, 0, 0, 0, 0, 0, 0, 0}}; }

Dict answer_to(const std::string& prompt) {
  Dict answer;
  answer.set("actions", prompt);
  protocol::add_policy_timing(answer, 12.5);
  return answer;
}

void record(Recorder& recorder, const std::string& prompt) {
  recorder.record(request_with_prompt(prompt), noise(), answer_to(prompt));
}

fs::path file(const fs::path& folder, int number, const std::string& kind) {
  return folder / fmt::format("{:06}.{}.msgpack", number, kind);
}

bool has_pair(const fs::path& folder, int number) {
  return fs::exists(file(folder, number, "request")) && fs::exists(file(folder, number, "response"));
}

// Number to prompt. Every request must have its response and nothing else may be there.
std::map<int, std::string> recorded(const fs::path& folder) {
  std::map<int, std::string> prompts;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.find(".request.msgpack") == std::string::npos) continue;
    const int number = std::stoi(name);
    const auto prompt = std::get<std::string>(*protocol::read_message(entry.path()).find("prompt"));
    const Dict response = protocol::read_message(file(folder, number, "response"));
    CHECK(std::get<std::string>(*response.find("actions")) == prompt);
    prompts[number] = prompt;
  }
  CHECK(std::distance(fs::directory_iterator(folder), {}) == static_cast<std::ptrdiff_t>(2 * prompts.size()));
  return prompts;
}

// What the disk does when it is to take a file, in place of the system's fsync().
std::mutex disk_mutex;
std::condition_variable disk_changed;
bool disk_hangs = false;
int disk_full_in = 0;  // the how many-th file from now on does not fit; 0: all do

// Makes the recorder wait at its next file.
class Stall {
 public:
  Stall() { set(true); }
  ~Stall() { release(); }
  void release() { set(false); }

 private:
  static void set(bool hangs) {
    const std::lock_guard lock(disk_mutex);
    disk_hangs = hangs;
    disk_changed.notify_all();
  }
};

}  // namespace

extern "C" int fsync(int descriptor) {
  std::unique_lock lock(disk_mutex);
  disk_changed.wait(lock, [] { return !disk_hangs; });
  if (disk_full_in > 0 && --disk_full_in == 0) {
    errno = ENOSPC;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}

TEST_CASE("a pair is the request with its noise and the answer without timing", "[recorder]") {
  const Log log;
  const TemporaryFolder parent;
  const fs::path folder = parent.path() / "new/records";
  Dict with_noise = request_with_prompt("its own");
  with_noise.set("noise", noise(7));
  {
    Recorder recorder({.folder = folder});
    CHECK(log.count((folder / "000000.request.msgpack").string()) == 1);
    record(recorder, "drawn");
    recorder.record(with_noise, noise(1), answer_to("its own"));
  }
  Dict drawn = request_with_prompt("drawn");
  drawn.set("noise", noise(1));
  Dict answer;
  answer.set("actions", std::string("drawn"));
  const auto bytes = [&](int number, const char* kind) {
    return protocol::encode(protocol::read_message(file(folder, number, kind)));
  };
  CHECK(bytes(0, "request") == protocol::encode(drawn));
  CHECK(bytes(0, "response") == protocol::encode(answer));
  CHECK(bytes(1, "request") == protocol::encode(with_noise));
  CHECK(recorded(folder).size() == 2);
  CHECK(log.count("warning") == 0);
}

TEST_CASE("numbers continue after the highest in the folder", "[recorder]") {
  const Log log;
  const TemporaryFolder folder;
  for (const char* other :
       {"000003.request.msgpack", "1000000.response.msgpack", "notes.txt", "2000000.request.msgpack.part",
        "2000000.txt", "2000000request.msgpack", "x3000000.request.msgpack"}) {
    write_all(folder.path() / other, "old");
  }
  {
    Recorder recorder({.folder = folder.path()});
    record(recorder, "a");
    record(recorder, "b");
  }
  CHECK(has_pair(folder.path(), 1000001));
  CHECK(has_pair(folder.path(), 1000002));
  CHECK(std::distance(fs::directory_iterator(folder.path()), {}) == 7 + 4);
  CHECK(read_all(folder.path() / "1000000.response.msgpack") == "old");
}

TEST_CASE("a second recorder continues where the first ended", "[recorder]") {
  const Log log;
  const TemporaryFolder folder;
  for (const char* prompt : {"a", "b", "c"}) {
    Recorder recorder({.folder = folder.path()});
    record(recorder, prompt);
  }
  CHECK(recorded(folder.path()) == std::map<int, std::string>{{0, "a"}, {1, "b"}, {2, "c"}});
}

TEST_CASE("a file that appears in the meantime is not overwritten", "[recorder]") {
  const Log log;
  const TemporaryFolder folder;
  {
    Recorder recorder({.folder = folder.path()});
    write_all(file(folder.path(), 0, "response"), "mine");
    write_all(file(folder.path(), 1, "request"), "mine");
    record(recorder, "a");
  }
  CHECK(has_pair(folder.path(), 2));
  CHECK(read_all(file(folder.path(), 0, "response")) == "mine");
  CHECK(read_all(file(folder.path(), 1, "request")) == "mine");
  CHECK_FALSE(has_pair(folder.path(), 0));
}

TEST_CASE("a folder has one recorder at a time", "[recorder]") {
  const Log log;
  const TemporaryFolder folder;
  {
    const Recorder first({.folder = folder.path()});
    CHECK_THROWS_WITH(Recorder({.folder = folder.path()}), contains_text("another server"));
  }
  CHECK_NOTHROW(Recorder({.folder = folder.path()}));
}

TEST_CASE("a folder that cannot be used is named", "[recorder]") {
  const Log log;
  const TemporaryFolder parent;
  write_all(parent.path() / "file", "");
  for (const fs::path& bad :
       {parent.path() / "file", parent.path() / "file/below", fs::path("/proc"), fs::path("/proc/below")}) {
    CHECK_THROWS_WITH(Recorder({.folder = bad}), contains_text(bad.string()));
    CHECK_THROWS_AS(check_recording_folder(bad), std::runtime_error);
  }
  CHECK_NOTHROW(check_recording_folder(parent.path() / "absent/below"));
  CHECK_NOTHROW(check_recording_folder(parent.path()));
  CHECK(std::distance(fs::directory_iterator(parent.path()), {}) == 1);
}

TEST_CASE("a broken link is not followed", "[recorder]") {
  const Log log;
  const TemporaryFolder folder;
  const fs::path records = folder.path() / "records", elsewhere = folder.path() / "elsewhere";
  fs::create_directory(records);
  {
    Recorder recorder({.folder = records});
    fs::create_symlink(elsewhere, file(records, 0, "request"));
    record(recorder, "a");
  }
  CHECK(has_pair(records, 1));
  CHECK_FALSE(fs::exists(elsewhere));
}

TEST_CASE("recording stops before the folder exceeds the limit", "[recorder]") {
  const Log log;
  const TemporaryFolder folder;
  std::uint64_t pair_bytes = 0;
  {
    Recorder recorder({.folder = folder.path()});
    record(recorder, "a");
  }
  for (const auto& entry : fs::directory_iterator(folder.path())) pair_bytes += entry.file_size();
  const RecorderOptions options{.folder = folder.path(), .max_folder_bytes = 4 * pair_bytes - 1};
  {
    Recorder recorder(options);
    for (const char* prompt : {"b", "c", "d", "e"}) record(recorder, prompt);
    CHECK(soon([&] { return log.count("the limit of") > 0; }));
    record(recorder, "");  // this would still fit
  }
  CHECK(recorded(folder.path()) == std::map<int, std::string>{{0, "a"}, {1, "b"}, {2, "c"}});
  CHECK(log.count("warning") == 1);
  {
    Recorder recorder(options);
    record(recorder, "d");
  }
  CHECK(recorded(folder.path()).size() == 3);
  {
    Recorder recorder({.folder = folder.path(), .max_folder_bytes = 4 * pair_bytes});
    record(recorder, "d");
  }
  CHECK(recorded(folder.path()).size() == 4);
}

TEST_CASE("recordings that do not fit into the queue are dropped, counted and logged once", "[recorder]") {
  const Log log;
  const TemporaryFolder folder;
  const std::string picture(10'000, 'x');
  {
    Recorder recorder({.folder = folder.path(), .max_waiting_bytes = 65'000});
    Stall stall;
    for (const char* prompt : {"0", "1", "2", "lost", "lost"}) record(recorder, prompt + picture);
    record(recorder, "lost, though it would fit");
    CHECK(log.count("cannot be written fast enough") == 1);
    CHECK(log.count("warning") == 1);

    stall.release();
    CHECK(soon([&] {
      record(recorder, "later");
      return has_pair(folder.path(), 3);
    }));
    record(recorder, "last");
  }
  CHECK(log.count("recorded again") == 1);
  CHECK(log.count("warning") == 2);
  std::map<int, std::string> prompts = recorded(folder.path());
  REQUIRE(prompts.size() >= 4);
  CHECK(prompts[1] == "1" + picture);
  CHECK(prompts[2] == "2" + picture);
  CHECK(prompts[3] == "later");
  CHECK(prompts.rbegin()->second == "last");
}

TEST_CASE("a request larger than the queue is dropped, others are not", "[recorder]") {
  const Log log;
  const TemporaryFolder folder;
  {
    Recorder recorder({.folder = folder.path(), .max_waiting_bytes = 65'000});
    record(recorder, std::string(100'000, 'x'));
    record(recorder, std::string(100'000, 'x'));
    CHECK(log.count("cannot be written fast enough") == 1);
    record(recorder, "small");
  }
  CHECK(recorded(folder.path()) == std::map<int, std::string>{{0, "small"}});
  CHECK(log.count("recorded again; not recorded: 2") == 1);
}

TEST_CASE("a removed folder is logged once and not created again", "[recorder]") {
  const Log log;
  const TemporaryFolder parent;
  const fs::path folder = parent.path() / "records";
  {
    Recorder recorder({.folder = folder});
    record(recorder, "before");
    REQUIRE(soon([&] { return has_pair(folder, 0); }));
    fs::remove_all(folder);
    record(recorder, "lost");
    REQUIRE(soon([&] { return log.count("was not recorded") == 1; }));
    for (int i = 0; i < 5; ++i) record(recorder, "lost or not");
    std::this_thread::sleep_for(50ms);
    CHECK(log.count("warning") == 1);
    CHECK_FALSE(fs::exists(folder));

    fs::create_directory(folder);
    write_all(file(folder, 8, "request"), "of another folder");
    record(recorder, "after");
  }
  CHECK(log.count("recorded again") == 1);
  CHECK(log.count("warning") == 2);
  CHECK(read_all(file(folder, 8, "request")) == "of another folder");
  fs::remove(file(folder, 8, "request"));
  const auto prompts = recorded(folder);
  REQUIRE_FALSE(prompts.empty());
  CHECK(prompts.begin()->first == 9);
  CHECK(prompts.rbegin()->second == "after");
}

TEST_CASE("a full disk is logged once and recording continues when there is space", "[recorder]") {
  const Log log;
  const TemporaryFolder folder;
  const std::string kind = GENERATE("request", "response");
  {
    Recorder recorder({.folder = folder.path()});
    {
      const std::lock_guard lock(disk_mutex);
      disk_full_in = kind == "request" ? 1 : 2;
    }
    record(recorder, "lost");
    record(recorder, "after");
  }
  CHECK(log.count("No space left on device") == 1);
  CHECK(log.count("recorded again; not recorded: 1") == 1);
  CHECK(log.count("warning") == 2);
  if (kind == "response") fs::remove(file(folder.path(), 0, "request"));
  CHECK(recorded(folder.path()) == std::map<int, std::string>{{kind == "response", "after"}});
}

TEST_CASE("the destructor logs how many requests were not recorded", "[recorder]") {
  const Log log;
  const TemporaryFolder folder;
  {
    Recorder recorder({.folder = folder.path()});
    fs::remove_all(folder.path());
    record(recorder, "a");
    record(recorder, "b");
  }
  CHECK(log.count("recording ends; requests not recorded: 2") == 1);
}

TEST_CASE("the destructor writes the waiting recordings", "[recorder]") {
  const Log log;
  const TemporaryFolder folder;
  auto recorder = std::make_unique<Recorder>(RecorderOptions{.folder = folder.path()});
  Stall stall;
  for (int i = 0; i < 20; ++i) record(*recorder, std::to_string(i));
  auto end = std::async(std::launch::async, [&] { recorder.reset(); });
  CHECK(end.wait_for(50ms) == std::future_status::timeout);
  stall.release();
  end.get();
  CHECK(recorded(folder.path()).size() == 20);
}

TEST_CASE("threads record at the same time", "[recorder]") {
  const Log log;
  const TemporaryFolder folder;
  constexpr int threads = 4, each = 25;
  {
    Recorder recorder({.folder = folder.path()});
    std::vector<std::thread> running;
    for (int thread = 0; thread < threads; ++thread) {
      running.emplace_back([&recorder, thread] {
        for (int i = 0; i < each; ++i) record(recorder, fmt::format("{}/{}", thread, i));
      });
    }
    for (std::thread& thread : running) thread.join();
  }
  const auto prompts = recorded(folder.path());
  REQUIRE(prompts.size() == threads * each);
  CHECK(prompts.rbegin()->first == threads * each - 1);
  std::set<std::string> different;
  for (const auto& [number, prompt] : prompts) different.insert(prompt);
  CHECK(different.size() == prompts.size());
}
