// The listening socket: accepts connections, limits how many are open, and tells them when the server shuts down. For
// the network thread.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "server/connection.h"
#include "server/deadline.h"

namespace pi0::server {

class Listener {
 public:
  // Binds and listens. Throws std::runtime_error that names host and port. Both references outlive the listener.
  Listener(boost::asio::io_context& io, Service& service);

  std::uint16_t port() const { return port_; }

  void accept_next();          // starts accepting
  void close_after_answers();  // calls close_after_answer() of every connection
  void stop();                 // accepts no more and calls go_away() of every connection
  void cut_off();              // ends the remaining TCP connections at once
  bool has_connections() const;

 private:
  void take(boost::asio::ip::tcp::socket socket);
  void pause();
  std::size_t open_sockets() const;
  std::size_t count_of(const boost::asio::ip::address& address) const;
  std::vector<std::shared_ptr<Connection>> pending_connections() const;
  bool cut_off_pending();

  Service& service_;
  boost::asio::ip::tcp::acceptor acceptor_;
  Deadline pause_;  // before the next accept, while no place is free
  std::uint16_t port_ = 0;
  std::size_t max_sockets_ = 0;
  std::list<std::weak_ptr<Connection>> connections_;  // in the order in which they came
};

}  // namespace pi0::server
