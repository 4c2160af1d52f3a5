#include "protocol/files.h"

#include "protocol/msgpack_numpy.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

using namespace pi0::protocol;
using pi0::contains_text;
using pi0::test::read_all;
using pi0::test::TemporaryFolder;
using pi0::test::write_all;
namespace fs = std::filesystem;

TEST_CASE("a message is read back as it was written", "[files]") {
  const TemporaryFolder folder;
  Dict message;
  message.set("prompt", std::string("wave"));
  message.set("state", NdArray{{'u', 1}, {3}, {1, 2, 3}});
  write_message(folder.path() / "a.msgpack", message);
  CHECK(encode(read_message(folder.path() / "a.msgpack")) == encode(message));
}

TEST_CASE("a file may hold more than the server takes", "[files]") {
  const TemporaryFolder folder;
  Dict message;
  for (int i = 0; i < 1025; ++i) message.set(std::to_string(i), i % 2 == 0);
  CHECK_THROWS_AS(decode(encode(message)), ProtocolError);
  write_message(folder.path() / "a.msgpack", message);
  CHECK(read_message(folder.path() / "a.msgpack").entries().size() == 1025);
}

TEST_CASE("a file that is no message is named", "[files]") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(read_message(folder.path() / "absent"),
                    contains_text("absent: cannot be opened"));
  write_all(folder.path() / "broken", "\xc1");
  CHECK_THROWS_WITH(read_message(folder.path() / "broken"),
                    contains_text("broken: message: byte 0"));
}

TEST_CASE("a file is written whole or stays as it was", "[files]") {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / "a";
  write_whole(file, "old");
  write_whole(file, "new");
  CHECK(read_all(file) == "new");
  CHECK_FALSE(fs::exists(folder.path() / "a.part"));

  fs::create_symlink("/dev/full", folder.path() / "a.part");  // a full disk
  CHECK_THROWS_WITH(write_whole(file, "lost"), contains_text("No space left on device"));
  CHECK(read_all(file) == "new");
  CHECK_FALSE(fs::exists(folder.path() / "a.part"));
}

TEST_CASE("a place is tried without leaving anything", "[files]") {
  const TemporaryFolder folder;
  CHECK_NOTHROW(check_writable(folder.path() / "a"));
  CHECK(fs::is_empty(folder.path()));
  CHECK_THROWS_WITH(check_writable(folder.path()), contains_text("is a folder"));
  CHECK_THROWS_WITH(check_writable(folder.path() / "absent/a"), contains_text("cannot be written"));
}
