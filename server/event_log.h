// Lines of the log about clients: what they sent is short and cannot do anything to a terminal, and what happens again
// and again is counted instead of repeated. For one thread.
#pragma once

#include <spdlog/spdlog.h>

#include <cstddef>
#include <map>
#include <string>
#include <string_view>

namespace pi0::server {

// At most 200 characters of `text`: control and formatting characters (Unicode Cc and Cf, line and paragraph
// separators) as \u{...}, bytes that are not UTF-8 as ?.
std::string log_text(std::string_view text);

class EventLog {
 public:
  // Logs a line, or counts it when many of its kind came since the last flush(). `kind` is a plural: "refused
  // requests".
  void add(spdlog::level::level_enum level, const std::string& kind, const std::string& line);

  void flush();  // logs what was counted; every few seconds and at the end

 private:
  struct Seen {
    std::size_t count = 0;
    spdlog::level::level_enum level = spdlog::level::info;
  };
  std::map<std::string, Seen> seen_;
};

}  // namespace pi0::server
