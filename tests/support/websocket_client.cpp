#include "support/websocket_client.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <stdexcept>
#include <vector>

#include "protocol/msgpack_numpy.h"

namespace pi0::test {
namespace {

using Clock = std::chrono::steady_clock;

void append_big_endian(std::string& bytes, std::uint64_t value, int size) {
  for (int i = size - 1; i >= 0; --i) bytes += static_cast<char>(value >> (8 * i));
}

std::uint64_t read_big_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<std::uint8_t>(byte);
  return value;
}

}  // namespace

TcpClient::TcpClient(std::uint16_t port, std::optional<int> receive_buffer_bytes)
    : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
  if (receive_buffer_bytes) {
    const int bytes = *receive_buffer_bytes;
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    ::close(socket_);
    throw std::runtime_error(std::string("cannot connect: ") + std::strerror(errno));
  }
  const int on = 1;
  ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

TcpClient::~TcpClient() {
  if (socket_ >= 0) ::close(socket_);
}

void TcpClient::send(std::string_view bytes) {
  const auto deadline = Clock::now() + patience;
  while (!bytes.empty()) {
    const auto sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return;  // what the server said before can still be read
    } else if (Clock::now() > deadline) {
      throw std::runtime_error("the server does not read");
    } else {
      pollfd ready{socket_, POLLOUT, 0};
      ::poll(&ready, 1, 100);
    }
  }
}

bool TcpClient::receive(std::string& into, Clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
  pollfd ready{socket_, POLLIN, 0};
  if (left.count() <= 0 || ::poll(&ready, 1, static_cast<int>(left.count())) == 0) {
    throw std::runtime_error("nothing received in time");
  }
  char buffer[65536];
  const auto size = ::recv(socket_, buffer, sizeof(buffer), 0);
  if (size > 0) into.append(buffer, static_cast<std::size_t>(size));
  return size > 0;
}

std::string TcpClient::receive_all() {
  std::string all;
  const auto deadline = Clock::now() + patience;
  while (receive(all, deadline)) {
  }
  return all;
}

void TcpClient::reset() {
  const linger hard{1, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  ::close(socket_);
  socket_ = -1;
}

std::string http(std::uint16_t port, std::string_view request) {
  TcpClient client(port);
  client.send(request);
  return client.receive_all();
}

std::string upgrade_request(std::string_view target) {
  return "GET " + std::string(target) +
         " HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
}

std::string frame_bytes(std::string_view payload, const Frame& frame) {
  std::string bytes;
  bytes += static_cast<char>((frame.fin ? 0x80 : 0) | frame.reserved << 4 | frame.opcode);
  const std::uint64_t size = frame.announced_size.value_or(payload.size());
  const std::uint8_t mask_bit = frame.masked ? 0x80 : 0;
  if (size < 126) {
    bytes += static_cast<char>(mask_bit | size);
  } else if (size < 65536) {
    bytes += static_cast<char>(mask_bit | 126);
    append_big_endian(bytes, size, 2);
  } else {
    bytes += static_cast<char>(mask_bit | 127);
    append_big_endian(bytes, size, 8);
  }
  const std::string_view mask("\x12\x34\x56\x78", 4);
  if (frame.masked) bytes += mask;
  for (std::size_t i = 0; i < payload.size(); ++i) {
    bytes += static_cast<char>(payload[i] ^ (frame.masked ? mask[i % 4] : 0));
  }
  return bytes;
}

WebSocketClient::WebSocketClient(std::uint16_t port, std::optional<int> receive_buffer_bytes, std::string_view target)
    : tcp_(port, receive_buffer_bytes) {
  tcp_.send(upgrade_request(target));
  const auto deadline = Clock::now() + patience;
  std::size_t end = std::string::npos;
  while ((end = received_.find("\r\n\r\n")) == std::string::npos) {
    if (!tcp_.receive(received_, deadline)) throw std::runtime_error("no handshake: " + received_);
  }
  if (!received_.starts_with("HTTP/1.1 101 ")) throw std::runtime_error("refused: " + received_);
  received_.erase(0, end + 4);
}

void WebSocketClient::send(std::string_view payload, const Frame& frame) { tcp_.send(frame_bytes(payload, frame)); }

void WebSocketClient::send(const protocol::Dict& request) {
  const std::vector<std::uint8_t> bytes = protocol::encode(request);
  send(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

Event WebSocketClient::next(std::chrono::milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  const auto take = [&](std::size_t size) -> std::optional<std::string> {
    while (received_.size() < size) {
      if (!tcp_.receive(received_, deadline)) return std::nullopt;
    }
    std::string taken = received_.substr(0, size);
    received_.erase(0, size);
    return taken;
  };
  const auto head = take(2);
  if (!head) return {"end", {}};
  std::uint64_t size = static_cast<std::uint8_t>((*head)[1]);
  if (size >= 126) size = read_big_endian(take(size == 126 ? 2 : 8).value());
  std::string payload = take(size).value();
  switch (static_cast<std::uint8_t>((*head)[0])) {
    case 0x80 | binary:
      return {"binary", payload};
    case 0x80 | text:
      return {"text", payload};
    case 0x80 | ping:
      return {"ping", payload};
    case 0x80 | pong:
      return {"pong", payload};
    case 0x80 | close: {
      const std::uint64_t code = read_big_endian(std::string_view(payload).substr(0, 2));
      return {"close " + std::to_string(code), payload.substr(std::min<std::size_t>(2, size))};
    }
    default:
      throw std::runtime_error("a frame no server sends");
  }
}

protocol::Dict WebSocketClient::next_answer() {
  const Event event = next();
  if (event.kind != "binary") {
    throw std::runtime_error("no answer but " + event.kind + ": " + event.payload);
  }
  return protocol::decode({reinterpret_cast<const std::uint8_t*>(event.payload.data()), event.payload.size()});
}

}  // namespace pi0::test
