#include "protocol/files.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <future>
#include <set>

#include "protocol/msgpack_numpy.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

using namespace pi0::protocol;
using pi0::contains_text;
using pi0::test::read_all;
using pi0::test::TemporaryFolder;
using pi0::test::write_all;
namespace fs = std::filesystem;

namespace {

using Names = std::set<std::string>;

Names names_in(const fs::path& folder) {
  Names names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
  return names;
}

// Writing more to a file fails, as it does on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int) = std::signal(SIGXFSZ, SIG_IGN);
};

class UnixSocket {
 public:
  explicit UnixSocket(const fs::path& path) : descriptor_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    REQUIRE(::bind(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  ~UnixSocket() { ::close(descriptor_); }

 private:
  int descriptor_;
};

}  // namespace

TEST_CASE("a message is read back as it was written", "[files]") {
  const TemporaryFolder folder;
  Dict message;
  message.set("prompt", std::string("wave"));
  message.set("state", NdArray{{'u', 1}, {3}, {1, 2, 3}});
  write_message(folder.path() / "a.msgpack", message);
  CHECK(encode(read_message(folder.path() / "a.msgpack")) == encode(message));
}

TEST_CASE("a file may hold more than the server accepts", "[files]") {
  const TemporaryFolder folder;
  const std::size_t too_many = DecodeLimits{}.max_values + 1;
  List list;
  list.items.resize(too_many);
  Dict message;
  message.set("list", std::move(list));
  CHECK_THROWS_AS(decode(encode(message)), ProtocolError);
  write_message(folder.path() / "a.msgpack", message);
  CHECK(std::get<List>(*read_message(folder.path() / "a.msgpack").find("list")).items.size() == too_many);
}

TEST_CASE("a file that is not a message is named in the error", "[files]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(read_message(folder.path() / "absent"), contains_text("absent: cannot be opened"));
  write_all(folder.path() / "broken", "\xc1");
  CHECK_THROWS_WITH(read_message(folder.path() / "broken"), contains_text("broken: message: byte 0"));
}

TEST_CASE("a file is written completely or stays as it was", "[files]") {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "a";
  write_whole(file, "old");
  write_whole(file, "new");
  CHECK(read_all(file) == "new");
  {
    WholeFile given_up(file);
    given_up.write("half", 4);
    CHECK(names_in(folder.path()).size() == 2);
  }
  CHECK(read_all(file) == "new");
  CHECK(names_in(folder.path()) == Names{"a"});
}

TEST_CASE("a full disk leaves the old file", "[files]") {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "a";
  REQUIRE(fs::is_character_file("/dev/full"));
  CHECK_THROWS_WITH(write_whole("/dev/full", "lost"),
                    contains_text("/dev/full: cannot be written: No space left on device"));
  write_whole(file, "old");
  const FileSizeLimit limit(3);
  CHECK_THROWS_WITH(write_whole(file, "more"), contains_text("a: cannot be written: File too large"));
  CHECK(read_all(file) == "old");
  CHECK(names_in(folder.path()) == Names{"a"});
}

TEST_CASE("check_writable() leaves nothing behind", "[files]") {
  const TemporaryFolder folder;
  CHECK_NOTHROW(check_writable(folder.path() / "a"));
  CHECK(fs::is_empty(folder.path()));
  CHECK_THROWS_WITH(check_writable(folder.path()), contains_text("is a folder"));
  CHECK_THROWS_WITH(check_writable(folder.path() / "absent/a"), contains_text("cannot be written"));
  CHECK_THROWS_WITH(write_whole(folder.path(), "a"), contains_text("is a folder"));
  const UnixSocket socket(folder.path() / "socket");
  CHECK_THROWS_WITH(check_writable(folder.path() / "socket"), contains_text("socket: is neither"));
  CHECK_THROWS_WITH(write_whole(folder.path() / "socket", "a"), contains_text("socket: is neither"));
  CHECK(names_in(folder.path()) == Names{"socket"});
}

TEST_CASE("a process that ends at once leaves no temporary files", "[files]") {
  const TemporaryFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    WholeFile file(folder.path() / "stats.json");
    file.write("half", 4);
    const bool was_there = names_in(folder.path()).size() == 1;
    remove_unfinished_files();
    ::_exit(was_there && names_in(folder.path()).empty() ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("other files in the folder are neither followed nor removed", "[files]") {
  const TemporaryFolder folder;
  write_all(folder.path() / "precious", "kept");
  fs::create_symlink("precious", folder.path() / "a.part");
  check_writable(folder.path() / "a");
  write_whole(folder.path() / "a", "new");
  CHECK(read_all(folder.path() / "precious") == "kept");
  CHECK(fs::is_symlink(folder.path() / "a.part"));
  CHECK(names_in(folder.path()) == Names{"a", "a.part", "precious"});
}

TEST_CASE("a link stays and its target is replaced", "[files]") {
  const TemporaryFolder folder;
  const fs::path target = folder.path() / "elsewhere/target", link = folder.path() / "link";
  write_all(target, "old");
  fs::create_symlink("elsewhere/target", folder.path() / "middle");
  fs::create_symlink(folder.path() / "middle", link);
  const fs::path hard_link = folder.path() / "hard";
  fs::create_hard_link(target, hard_link);
  write_whole(link, "new");
  CHECK(fs::read_symlink(link) == folder.path() / "middle");
  CHECK(fs::read_symlink(folder.path() / "middle") == "elsewhere/target");
  CHECK(read_all(target) == "new");
  CHECK(read_all(hard_link) == "old");  // not written into
  CHECK(names_in(folder.path() / "elsewhere") == Names{"target"});

  fs::remove(target);
  check_writable(link);
  CHECK_FALSE(fs::exists(target));
  write_whole(link, "made");
  CHECK(read_all(target) == "made");

  fs::create_symlink("loop", folder.path() / "loop");
  CHECK_THROWS_WITH(write_whole(folder.path() / "loop", ""), contains_text("loop: cannot be written: Too many levels"));
  fs::create_symlink("elsewhere", folder.path() / "folder");
  CHECK_THROWS_WITH(check_writable(folder.path() / "folder"), contains_text("is a folder"));
}

TEST_CASE("a device is written in place", "[files]") {
  const TemporaryFolder folder;
  const fs::path own = folder.path() / "null";
  if (::mknod(own.c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0) {  // root's to make
    check_writable(own);
    write_whole(own, "gone");
    CHECK(fs::is_character_file(own));
    fs::remove(own);
  }
  fs::create_symlink("/dev/null", own);
  check_writable(own);
  write_whole(own, "gone");
  CHECK(fs::is_symlink(own));
  CHECK(fs::is_character_file("/dev/null"));
  CHECK(names_in(folder.path()) == Names{"null"});
}

TEST_CASE("a pipe's reader gets all, and nothing before", "[files]") {
  const TemporaryFolder folder;
  const fs::path pipe = folder.path() / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const std::string content(1'000'000, 'x');
  check_writable(pipe);  // does not wait for a reader
  auto read = std::async(std::launch::async, [&] { return read_all(pipe); });
  for (int i = 0; i < 10; ++i) check_writable(pipe);
  write_whole(pipe, content);
  CHECK(read.get() == content);
  CHECK(fs::is_fifo(pipe));
  CHECK(names_in(folder.path()) == Names{"pipe"});
}

TEST_CASE("an open file under /proc is written in place", "[files]") {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "a";
  write_all(file, "old and long");
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(descriptor >= 0);
  const fs::path name = "/dev/fd/" + std::to_string(descriptor);
  fs::create_symlink(name, folder.path() / "link");
  check_writable(name);
  CHECK(read_all(file) == "old and long");
  for (const fs::path& path : {name, folder.path() / "link"}) {
    write_whole(path, path.string());
    std::string seen(path.string().size(), '\0');
    CHECK(::pread(descriptor, seen.data(), seen.size(), 0) == static_cast<ssize_t>(seen.size()));
    CHECK(seen == path.string());
    CHECK(read_all(file) == path.string());
  }
  ::close(descriptor);
}

TEST_CASE("permissions are the old file's, or those of the umask", "[files]") {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "a", link = folder.path() / "link";
  const mode_t before = ::umask(027);
  write_whole(file, "new");
  CHECK(fs::status(file).permissions() == fs::perms{0640});
  fs::create_symlink("a", link);
  for (const fs::perms mode : {fs::perms{0600}, fs::perms{0666}, fs::perms{0444}}) {
    fs::permissions(file, mode);
    write_whole(link, "again");
    CHECK(fs::status(file).permissions() == mode);
  }
  ::umask(before);
}

TEST_CASE("a file name may have the longest allowed length", "[files]") {
  const TemporaryFolder folder;
  write_whole(folder.path() / std::string(255, 'n'), "a");
  CHECK(read_all(folder.path() / std::string(255, 'n')) == "a");
}

TEST_CASE("a pipe without a reader does not block", "[files]") {
  const TemporaryFolder folder;
  const auto pipe = folder.path() / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK_THROWS_WITH(write_whole(pipe, std::string_view("text")),
                    contains_text("pipe: cannot be written: the pipe has no reader"));
}
