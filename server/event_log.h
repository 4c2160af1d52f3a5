// Log lines about clients. What clients sent is shortened and escaped, so that it cannot control a terminal; lines that
// repeat are counted. For one thread.
#pragma once

#include <spdlog/spdlog.h>

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>

namespace pi0::server {

// At most 200 characters of `text`: control and formatting characters (Unicode Cc and Cf, line and paragraph
// separators) as \u{...}, bytes that are not UTF-8 as ?.
std::string log_text(std::string_view text);

class EventLog {
 public:
  // Logs the line, or counts it after ten of its kind since the last flush(). `kind` is a plural, for the line
  // "and 12 more refused requests".
  void add(spdlog::level::level_enum level, const std::string& kind, const std::string& line);

  void flush();  // logs the counts; call every few seconds and at the end

 private:
  struct Seen {
    std::size_t count = 0;
    spdlog::level::level_enum level = spdlog::level::info;
  };
  std::map<std::string, Seen> seen_;
};

// Lines about one client. They begin with its address and port, and their text is escaped by log_text().
class PeerLog {
 public:
  PeerLog(EventLog& log, std::string peer) : log_(log), peer_(std::move(peer)) {}  // `log` outlives this

  void info(const std::string& kind, std::string_view text) const { add(spdlog::level::info, kind, text); }
  void warn(const std::string& kind, std::string_view text) const { add(spdlog::level::warn, kind, text); }
  void error(const std::string& kind, std::string_view text) const { add(spdlog::level::err, kind, text); }

  const std::string& peer() const { return peer_; }  // "127.0.0.1:40000"

 private:
  void add(spdlog::level::level_enum level, const std::string& kind, std::string_view text) const {
    log_.add(level, kind, peer_ + ": " + log_text(text));
  }

  EventLog& log_;
  std::string peer_;
};

}  // namespace pi0::server
