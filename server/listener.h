// The listening socket: accepts clients and knows which connections are open.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "server/connection.h"

namespace pi0::server {

class Listener {
 public:
  // Binds and listens. Throws std::runtime_error that names host and port. Both references outlive
  // the listener.
  Listener(boost::asio::io_context& io, Service& service);

  std::uint16_t port() const { return port_; }

  void accept_next();  // starts accepting
  void stop();         // accepts no more and tells every connection to go away
  void cut_off();      // ends what connections are left, without a word
  bool has_connections() const;

 private:
  void take(boost::asio::ip::tcp::socket socket);
  void pause();
  std::size_t open_sockets() const;
  std::size_t count_of(const boost::asio::ip::address& address) const;
  std::vector<std::shared_ptr<Connection>> newcomers_here() const;
  bool cut_off_newcomer();

  Service& service_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::steady_timer pause_;
  std::uint16_t port_ = 0;
  std::size_t most_sockets_ = 0;
  std::list<std::weak_ptr<Connection>> connections_;  // in the order in which they came
};

}  // namespace pi0::server
