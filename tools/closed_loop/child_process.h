// A child process together with all that it starts: one process group, ended as one.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace pi0::tools {

class ChildProcess {
 public:
  // Starts `command` (a program's path and its arguments) in `directory`, with stdout and stderr at the
  // end of `log`. It gets SIGTERM when this process dies. Its end is seen while `io` runs. Throws
  // std::runtime_error that names the log or the program.
  ChildProcess(boost::asio::io_context& io, const std::vector<std::string>& command,
               const std::filesystem::path& directory, const std::filesystem::path& log);

  // The same with stdout and stderr into an open descriptor, which stays the caller's.
  ChildProcess(boost::asio::io_context& io, const std::vector<std::string>& command,
               const std::filesystem::path& directory, int output);
  ~ChildProcess();  // kills what is left of the group
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  bool has_ended() const;      // the program itself; what it started may still run
  bool has_succeeded() const;  // ended with exit code 0
  int exit_code() const;       // -1 when a signal ended it
  std::string ending() const;  // "exit code 3", "signal 9 (Killed)"

  // SIGTERM to the group, and SIGKILL when something of it still runs after `grace`. Returns when
  // nothing does. False if SIGKILL was needed.
  bool stop(std::chrono::milliseconds grace);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pi0::tools
