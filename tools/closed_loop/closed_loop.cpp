// pi0 closed-loop: a server per setting, and a simulator's episodes against each. Reference: pi0-quant
// run_benchmark.py.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <exception>
#include <filesystem>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "protocol/files.h"
#include "tools/closed_loop/closed_loop_options.h"
#include "tools/closed_loop/closed_loop_results.h"
#include "tools/closed_loop/event_loop.h"
#include "tools/closed_loop/presets.h"
#include "tools/closed_loop/served_setting.h"
#include "tools/closed_loop/setting_run.h"
#include "tools/common/commands.h"
#include "tools/common/print.h"
#include "tools/common/results.h"
#include "tools/common/stopwatch.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// All settings, --jobs of them at a time.
class ClosedLoop {
 public:
  explicit ClosedLoop(ClosedLoopOptions options)
      : options_(std::move(options)), settings_(served_settings(options_)), root_(result_folder(options_)) {
    entries_.resize(settings_.size());
    lock();
    write_settings(root_, options_);
  }
  ~ClosedLoop() { ::close(lock_); }
  ClosedLoop(const ClosedLoop&) = delete;
  ClosedLoop& operator=(const ClosedLoop&) = delete;

  void run() {
    print(stderr, "closed-loop: results in {}\n", root_.string());
    if (options_.resume) read_earlier();
    std::vector<std::jthread> threads;
    for (std::size_t job = 1; job < std::min(options_.jobs, settings_.size()); ++job) {
      threads.emplace_back([this] { work(EventLoop::Announces::no); });
    }
    work(EventLoop::Announces::yes);
    threads.clear();  // waits for them
    if (failure_) rethrow();
    if (interrupted_) throw std::runtime_error("interrupted; --resume continues");
    const std::vector<Json> entries = finished();
    print_settings(entries);
    const auto failed = std::ranges::count_if(entries, has_error);
    if (failed == 0) return;
    throw std::runtime_error(fmt::format("{} of {} settings had errors, which {} names; --resume runs these again",
                                         failed, settings_.size(), (root_ / "summary.json").string()));
  }

 private:
  // Two processes would delete each other's files.
  void lock() {
    lock_ = ::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock_ >= 0 && ::flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      ::close(lock_);
      throw std::runtime_error(root_.string() + ": another pi0 closed-loop is writing its results there");
    }
  }

  // What is there stays in the summary, however this run ends and whatever it asks for.
  void read_earlier() {
    for (std::size_t i = 0; i < settings_.size(); ++i) {
      const fs::path folder = root_ / settings_[i].folder;
      std::optional<Json> entry = earlier_entry(folder);
      if (!entry || !has_same_rules(folder, settings_[i])) continue;
      read_anew(folder, *entry);
      print(stderr, "closed-loop: {}: done already, {}\n", settings_[i].folder, outcome(*entry));
      entries_[i] = std::move(*entry);
    }
    std::set<fs::path> folders;
    for (const fs::directory_entry& place : fs::directory_iterator(root_)) folders.insert(place.path());
    for (const fs::path& folder : folders) {
      const bool is_asked_for =
          std::ranges::find(settings_, folder.filename().string(), &ServedSetting::folder) != settings_.end();
      std::optional<Json> entry = is_asked_for ? std::nullopt : earlier_entry(folder);
      if (!entry) continue;
      read_anew(folder, *entry);
      others_.push_back(std::move(*entry));
    }
    write_closed_loop_summary(root_, finished());
  }

  void read_anew(const fs::path& folder, Json& entry) {
    const Json before = entry;
    read_again(options_, folder, entry);
    if (entry != before) protocol::write_whole(folder / "result.json", text_of(entry));
  }

  void work(EventLoop::Announces announces) {
    try {
      EventLoop events(announces);
      while (const std::optional<std::size_t> next = take()) {
        Stopwatch clock;
        run_one(events, *next);
        finish(*next, clock.lap());
      }
    } catch (...) {
      const std::scoped_lock lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
    }
  }

  void rethrow() const {
    try {
      std::rethrow_exception(failure_);
    } catch (const CLI::ValidationError&) {
      if (finished().empty() && !options_.resume) fs::remove_all(root_);  // it is new and empty
      throw;
    }
  }

  std::optional<std::size_t> take() {
    const std::scoped_lock lock(mutex_);
    while (next_ < settings_.size() && !entries_[next_].is_null()) ++next_;
    return failure_ || interrupted_ || next_ == settings_.size() ? std::nullopt : std::optional(next_++);
  }

  void run_one(EventLoop& events, std::size_t index) {
    const ServedSetting& setting = settings_[index];
    const fs::path folder = root_ / setting.folder;
    Json entry = run_setting(events, ports_, options_, folder, setting);
    protocol::write_whole(folder / "result.json", text_of(entry));
    const std::scoped_lock lock(mutex_);
    entries_[index] = std::move(entry);
    interrupted_ = interrupted_ || events.interrupted();
  }

  void finish(std::size_t index, double seconds) {
    const std::scoped_lock lock(mutex_);
    write_closed_loop_summary(root_, finished());
    if (interrupted_) return;
    spent_ += seconds;
    ++measured_;
    const auto done =
        static_cast<std::size_t>(std::ranges::count_if(entries_, [](const Json& entry) { return !entry.is_null(); }));
    const double each = spent_ / static_cast<double>(measured_ * options_.jobs);
    print(stderr, "closed-loop: {} of {}, {}: {}; {:.0f} s left\n", done, settings_.size(), settings_[index].folder,
          outcome(entries_[index]), each * static_cast<double>(settings_.size() - done));
  }

  // In the order of the settings, with what only all of them tell.
  std::vector<Json> finished() const {
    std::vector<Json> entries;
    std::ranges::copy_if(entries_, std::back_inserter(entries), [](const Json& entry) { return !entry.is_null(); });
    entries.insert(entries.end(), others_.begin(), others_.end());
    add_comparisons(entries);
    return entries;
  }

  ClosedLoopOptions options_;
  const std::vector<ServedSetting> settings_;
  const fs::path root_;
  Ports ports_;
  std::mutex mutex_;  // of what follows
  std::size_t next_ = 0, measured_ = 0;
  std::vector<Json> entries_;  // null: not done
  std::vector<Json> others_;   // of earlier runs in this folder, and not asked for now
  double spent_ = 0;           // seconds
  bool interrupted_ = false;
  std::exception_ptr failure_;
  int lock_ = -1;
};

}  // namespace

void add_closed_loop(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "closed-loop", "Serve settings one after the other and run a simulator's episodes against each");
  std::string simulators;
  for (const Preset& preset : presets()) simulators += fmt::format("  {:<11}{}\n", preset.name, preset.about);
  command->footer(
      "Presets:\n" + simulators +
      "\nAll other options go to pi0-server, whose --help explains them: --config, --checkpoint-dir, ...\n\n"
      "Example:\n"
      "  pi0 closed-loop --config pi05_droid --checkpoint-dir DIR --unquantized --pairs "
      "float8_e4m3/float16,bfloat16/bfloat16 \\\n"
      "    --eval-command 'python eval.py --port {port} --scene {scene} --out {output_dir}'");
  const auto options = std::make_shared<ClosedLoopOptions>();
  add_closed_loop_options(*command, *options);
  command->callback([options, command] {
    settle(*options, *command);
    ClosedLoop(*options).run();
  });
}

}  // namespace pi0::tools
