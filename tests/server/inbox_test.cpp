#include "server/inbox.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "support/catch.h"

using namespace pi0::server;

namespace {

void append(Inbox& inbox, std::string_view text) {
  inbox.append({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

std::string text_of(const Message& message) {
  const auto bytes = message.bytes.view();
  return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST_CASE("messages are taken in the order in which they ended", "[inbox]") {
  Backlog backlog(100);
  Inbox inbox(backlog, [] { return true; }, /*max_messages=*/3, /*max_bytes=*/100);
  append(inbox, "fi");
  CHECK(inbox.is_receiving());
  CHECK(inbox.is_empty());
  append(inbox, "rst");
  CHECK(inbox.received_bytes() == 5);
  inbox.finish(MessageType::binary);
  inbox.finish(MessageType::text);
  CHECK(!inbox.is_receiving());

  const Message first = inbox.take(), empty = inbox.take();
  CHECK(text_of(first) == "first");
  CHECK(first.type == MessageType::binary);
  CHECK(text_of(empty).empty());
  CHECK(empty.type == MessageType::text);
  CHECK(inbox.is_empty());
}

TEST_CASE("an inbox is full by messages or by bytes", "[inbox]") {
  Backlog backlog(100);
  Inbox inbox(backlog, [] { return true; }, /*max_messages=*/2, /*max_bytes=*/10);
  SECTION("messages") {
    for (int i = 0; i < 2; ++i) {
      CHECK(!inbox.is_full());
      inbox.finish(MessageType::binary);
    }
  }
  SECTION("bytes") {
    append(inbox, std::string(11, 'x'));
    CHECK(!inbox.is_full());  // it is not complete
    inbox.finish(MessageType::binary);
  }
  CHECK(inbox.is_full());
  inbox.take();
  CHECK(!inbox.is_full());
}

TEST_CASE("messages count until they have a reply, dropped ones for good", "[inbox]") {
  Backlog backlog(100);
  Inbox inbox(backlog, [] { return true; }, /*max_messages=*/8, /*max_bytes=*/100);
  for (int i = 0; i < 3; ++i) inbox.finish(MessageType::binary);
  inbox.take();
  CHECK(inbox.unreplied() == 3);
  inbox.count_reply();
  append(inbox, "unfinished");
  inbox.drop_all();
  CHECK(inbox.is_empty());
  CHECK(!inbox.is_receiving());
  CHECK(inbox.unreplied() == 2);
}

TEST_CASE("an inbox gives way with all that it holds", "[inbox]") {
  Backlog backlog(10);
  std::vector<std::string> gave_way;
  const auto give_way = [&](const std::string& name, Inbox& inbox) {
    gave_way.push_back(name);
    inbox.drop_all();
    return true;
  };
  Inbox large(backlog, [&] { return give_way("large", large); }, /*max_messages=*/8, /*max_bytes=*/100);
  Inbox small(backlog, [&] { return give_way("small", small); }, /*max_messages=*/8, /*max_bytes=*/100);
  append(large, "12345678");
  large.finish(MessageType::binary);
  append(small, "123");
  small.finish(MessageType::binary);
  backlog.make_room();
  CHECK(gave_way == std::vector<std::string>{"large"});
  CHECK(large.is_empty());
  CHECK(!small.is_empty());
}
