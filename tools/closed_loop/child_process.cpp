#include "tools/closed_loop/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>

// Boost 1.86 made another interface the default and kept this one as v1.
#if __has_include(<boost/process/v1/child.hpp>)
#include <boost/process/v1.hpp>
namespace bp = boost::process::v1;
#else
#include <boost/process/args.hpp>
#include <boost/process/async.hpp>
#include <boost/process/child.hpp>
#include <boost/process/exe.hpp>
#include <boost/process/extend.hpp>
#include <boost/process/group.hpp>
#include <boost/process/io.hpp>
#include <boost/process/start_dir.hpp>
namespace bp = boost::process;
#endif

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <stdexcept>

namespace pi0::tools {
namespace {

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

File open_log(const std::filesystem::path& path) {
  File file(std::fopen(path.c_str(), "ae"), &std::fclose);
  if (file) return file;
  throw std::runtime_error(path.string() + ": cannot be written: " + std::strerror(errno));
}

File open_again(int descriptor) {
  const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  File file(copy < 0 ? nullptr : ::fdopen(copy, "a"), &std::fclose);
  if (file) return file;
  throw std::runtime_error(std::string("a program's output: ") + std::strerror(errno));
}

}  // namespace

class ChildProcess::Impl {
 public:
  Impl(boost::asio::io_context& io, const std::vector<std::string>& command, const std::filesystem::path& directory,
       const File& output)
      : io_(io) {
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);  // orphans of the group become our children
    const std::vector<std::string> arguments(command.begin() + 1, command.end());
    const auto die_with_parent = [](auto&) {
      std::signal(SIGPIPE, SIG_DFL);  // this program ignores it, and children inherit that
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    };
    try {
      child_ = bp::child(
          bp::exe = command.front(), bp::args = arguments, bp::start_dir = directory.string(),
          (bp::std_out & bp::std_err) > output.get(), bp::std_in < bp::null, group_, io_,
          bp::extend::on_exec_setup = die_with_parent,
          bp::on_exit = [ended = ended_](int, const std::error_code&) { *ended = true; });
    } catch (const bp::process_error& error) {
      throw std::runtime_error(command.front() + ": cannot be started: " + error.code().message());
    }
  }

  ~Impl() {
    if (!is_over()) {
      signal_group(SIGKILL);
      wait_until_over(std::chrono::seconds(5));
    }
    child_.detach();
    group_.detach();
  }

  bool has_ended() const { return *ended_; }
  int status() const { return child_.native_exit_code(); }

  bool stop(std::chrono::milliseconds grace) {
    signal_group(SIGTERM);
    if (wait_until_over(grace)) return true;
    signal_group(SIGKILL);
    wait_until_over(std::chrono::seconds(5));
    return false;
  }

 private:
  void signal_group(int signal) const { ::kill(-group_.native_handle(), signal); }

  bool wait_until_over(std::chrono::milliseconds limit) {
    const auto deadline = std::chrono::steady_clock::now() + limit;
    while (!is_over()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      if (io_.stopped()) io_.restart();
      io_.run_for(std::chrono::milliseconds(10));
    }
    return true;
  }

  // Whether nothing of the group runs. Orphans of the child must be reaped here, else they would stay in the group.
  bool is_over() {
    if (is_over_ || !*ended_) return is_over_;
    while (::waitpid(-group_.native_handle(), nullptr, WNOHANG) > 0) {
    }
    is_over_ = ::kill(-group_.native_handle(), 0) != 0;
    return is_over_;
  }

  boost::asio::io_context& io_;
  std::shared_ptr<bool> ended_ = std::make_shared<bool>(false);  // shared: Asio may see the end after us
  bp::group group_;
  bp::child child_;
  bool is_over_ = false;  // the number may be another group's from then on
};

ChildProcess::ChildProcess(boost::asio::io_context& io, const std::vector<std::string>& command,
                           const std::filesystem::path& directory, const std::filesystem::path& log)
    : impl_(std::make_unique<Impl>(io, command, directory, open_log(log))) {}

ChildProcess::ChildProcess(boost::asio::io_context& io, const std::vector<std::string>& command,
                           const std::filesystem::path& directory, int output)
    : impl_(std::make_unique<Impl>(io, command, directory, open_again(output))) {}

ChildProcess::~ChildProcess() = default;

bool ChildProcess::has_ended() const { return impl_->has_ended(); }
bool ChildProcess::has_succeeded() const { return has_ended() && exit_code() == 0; }

int ChildProcess::exit_code() const { return WIFEXITED(impl_->status()) ? WEXITSTATUS(impl_->status()) : -1; }

std::string ChildProcess::ending() const {
  if (exit_code() >= 0) return fmt::format("exit code {}", exit_code());
  const int signal = WTERMSIG(impl_->status());
  return fmt::format("signal {} ({})", signal, strsignal(signal));
}

bool ChildProcess::stop(std::chrono::milliseconds grace) { return impl_->stop(grace); }

}  // namespace pi0::tools
