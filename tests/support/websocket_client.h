// A WebSocket client on a plain POSIX socket: it can send what a library would refuse to send, and
// every wait has a deadline. For tests on 127.0.0.1 only.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/value.h"
#include "support/patience.h"

namespace pi0::test {

enum Opcode : std::uint8_t { continuation = 0, text = 1, binary = 2, close = 8, ping = 9, pong = 10 };

class TcpClient {
 public:
  // Throws std::runtime_error when refused. The system makes receive buffers as large as it likes
  // (tens of megabytes) unless told.
  explicit TcpClient(std::uint16_t port, std::optional<int> receive_buffer_bytes = {});
  ~TcpClient();
  TcpClient(const TcpClient&) = delete;
  TcpClient& operator=(const TcpClient&) = delete;

  void send(std::string_view bytes);
  bool receive(std::string& into,
               std::chrono::steady_clock::time_point deadline);  // false at the end
  std::string receive_all();                                     // until the server ends the connection
  void reset();                                                  // ends with a TCP RST

 private:
  int socket_ = -1;
};

std::string http(std::uint16_t port, std::string_view request);  // the whole response
std::string upgrade_request(std::string_view target = "/");

struct Frame {
  Opcode opcode = binary;
  bool fin = true;
  bool masked = true;
  std::uint8_t reserved = 0;
  std::optional<std::uint64_t> announced_size = {};  // a lie about the payload's
};
std::string frame_bytes(std::string_view payload, const Frame& frame = {});

// What the server sent: "binary", "text", "ping", "pong", "close 1011", "end".
struct Event {
  std::string kind;
  std::string payload;
};

class WebSocketClient {
 public:
  // Shakes hands; the metadata is the first event.
  explicit WebSocketClient(std::uint16_t port, std::optional<int> receive_buffer_bytes = {},
                           std::string_view target = "/");

  TcpClient& tcp() { return tcp_; }
  void send(std::string_view payload, const Frame& frame = {});
  void send(const protocol::Dict& request);

  // The next frame. Throws std::runtime_error when none comes in time. Pings are not answered.
  Event next(std::chrono::milliseconds timeout = patience);
  protocol::Dict next_answer();

 private:
  TcpClient tcp_;
  std::string received_;
};

}  // namespace pi0::test
