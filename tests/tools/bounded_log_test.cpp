#include "tools/closed_loop/bounded_log.h"

#include <unistd.h>

#include <chrono>
#include <string>
#include <thread>

#include "support/catch.h"
#include "support/temporary_folder.h"

using namespace pi0::tools;
using namespace std::chrono_literals;
using pi0::contains_text;
using pi0::test::read_all;
using pi0::test::TemporaryFolder;
using pi0::test::write_all;
namespace fs = std::filesystem;

namespace {

std::string kept_of(const fs::path& path, std::size_t limit, const std::string& text, std::size_t piece) {
  BoundedFile file(path, limit);
  for (std::size_t at = 0; at < text.size(); at += piece) {
    file.add(std::string_view(text).substr(at, piece));
    CHECK(fs::file_size(path) <= limit);
  }
  file.finish();
  return read_all(path);
}

void write_to(int descriptor, const std::string& text) {
  REQUIRE(::write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

}  // namespace

TEST_CASE("a bounded file keeps its first and its last part, however it comes", "[bounded_log]") {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "log";
  std::string text;
  for (int i = 0; i < 100; ++i) text += static_cast<char>('!' + i % 90);
  for (std::size_t limit : {10, 11, 99}) {
    for (std::size_t size : {0, 1, 9, 10, 11, 12, 17, 98, 99, 100}) {
      for (std::size_t piece : {1, 3, 7, 100}) {
        const std::string given = text.substr(0, size);
        const std::string left_out = "\n[" + std::to_string(size - limit) + " bytes are left out here]\n";
        const std::string expected =
            size <= limit ? given : given.substr(0, limit / 2) + left_out + given.substr(size - (limit - limit / 2));
        CHECK(kept_of(path, limit, given, piece) == expected);
      }
    }
  }
}

TEST_CASE("a bounded file that cannot be written is named", "[bounded_log]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(BoundedFile(folder.path() / "absent/log", 10),
                    contains_text("absent/log: cannot be written: No such"));
}

TEST_CASE("a log takes what was written until its end", "[bounded_log]") {
  const TemporaryFolder folder;
  boost::asio::io_context io;
  BoundedLog log(io, folder.path() / "log", 1000);
  write_to(log.descriptor(), "first ");
  io.poll();
  CHECK(read_all(folder.path() / "log") == "first ");  // can be followed
  write_to(log.descriptor(), "second ");
  io.poll();
  write_to(log.descriptor(), "last");
  log.finish();
  CHECK(read_all(folder.path() / "log") == "first second last");
}

TEST_CASE("who writes on after the log's end is neither killed nor blocked", "[bounded_log]") {
  const TemporaryFolder folder;
  boost::asio::io_context io;
  int writer = -1;
  {
    BoundedLog log(io, folder.path() / "log", 1000);
    writer = ::dup(log.descriptor());
    write_to(writer, "kept");
    log.finish();
  }
  const std::string megabyte(1 << 20, 'x');
  std::thread writing([&] {
    write_to(writer, megabyte);  // as large as a pipe is not
    ::close(writer);
  });
  io.run_for(30s);  // ends with the last writer
  CHECK(io.stopped());
  writing.join();
  CHECK(read_all(folder.path() / "log") == "kept");
}
