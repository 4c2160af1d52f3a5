// Keeps what is written to a TCP connection together.
#pragma once

#include <netinet/tcp.h>
#include <sys/socket.h>

namespace pi0::server {

// While it lives, the system sends full segments only, for at most 200 ms; at its end, the rest.
class Cork {
 public:
  explicit Cork(int socket) : socket_(socket) { set(1); }
  ~Cork() { set(0); }
  Cork(const Cork&) = delete;
  Cork& operator=(const Cork&) = delete;

 private:
  void set(int on) const { ::setsockopt(socket_, IPPROTO_TCP, TCP_CORK, &on, sizeof(on)); }

  int socket_;
};

}  // namespace pi0::server
