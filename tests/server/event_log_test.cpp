#include "server/event_log.h"

#include <string>

#include "support/captured_log.h"
#include "support/catch.h"

using pi0::server::EventLog;
using pi0::server::log_text;

TEST_CASE("what clients send is shortened and escaped in the log", "[log]") {
  CHECK(log_text("plain text, \u00e9 and \u65e5\u672c") == "plain text, \u00e9 and \u65e5\u672c");
  CHECK(log_text(std::string(200, 'x')) == std::string(200, 'x'));
  CHECK(log_text(std::string(201, 'x')) == std::string(200, 'x') + "...");
  CHECK(log_text("a\nb\r\x1b[2Jc\x7f") == "a\\u{a}b\\u{d}\\u{1b}[2Jc\\u{7f}");
  CHECK(log_text("\u0085\u202e\u2066\ufeff\u2028\U000E0041") ==
        "\\u{85}\\u{202e}\\u{2066}\\u{feff}\\u{2028}\\u{e0041}");
  CHECK(log_text("\xff\xe6\x97") == "???");
}

TEST_CASE("lines that repeat are counted", "[log]") {
  const pi0::test::CapturedLog captured;
  EventLog log;
  for (int i = 0; i < 15; ++i) log.add(spdlog::level::warn, "wrong keys", "wrong key " + std::to_string(i));
  log.add(spdlog::level::info, "connections", "connected");
  log.flush();
  log.flush();
  log.add(spdlog::level::warn, "wrong keys", "again");
  log.flush();
  std::string expected;
  for (int i = 0; i < 10; ++i) expected += "wrong key " + std::to_string(i) + "\n";
  CHECK(captured.lines() == expected + "connected\nand 5 more wrong keys\nagain\n");
}
