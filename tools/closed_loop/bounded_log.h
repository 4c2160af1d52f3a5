// Output of programs, of any length, as a file of bounded size: its first and its last part.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string_view>

namespace pi0::tools {

// The file itself. All throw std::runtime_error that names it when it cannot be written.
class BoundedFile {
 public:
  BoundedFile(std::filesystem::path path, std::size_t max_bytes);  // an existing file is emptied

  void add(std::string_view bytes);

  // The last call: puts the parts in order, with a line between them that says how many bytes are left out. Until then
  // the last part is a ring: its beginning may come after its end.
  void finish();

 private:
  void write_at(std::size_t place, std::string_view bytes);
  [[noreturn]] void fail() const;

  const std::filesystem::path path_;
  const std::size_t head_bytes_, tail_bytes_;
  std::fstream file_;
  std::size_t seen_ = 0;  // bytes, kept or not
};

// A pipe for programs to write into. While `io` runs, it is read into the file, so it never blocks them. If a program
// outlives this object and still writes, its output is read and dropped for as long as `io` exists.
class BoundedLog {
 public:
  // Throws std::runtime_error that names the file, as handlers that `io` runs do.
  BoundedLog(boost::asio::io_context& io, const std::filesystem::path& path, std::size_t max_bytes);
  ~BoundedLog();
  BoundedLog(const BoundedLog&) = delete;
  BoundedLog& operator=(const BoundedLog&) = delete;

  int descriptor() const;  // of the pipe's end for writing
  void finish();           // takes what was written until now and finishes the file; the last call

 private:
  class Reader;
  std::shared_ptr<Reader> reader_;
  int descriptor_ = -1;
};

}  // namespace pi0::tools
