// One connection from accept() to its end: first HTTP (http_front), then a WebSocket (session) if it is a client's.
// Everything runs on the network thread.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>

#include "server/awaitable.h"
#include "server/event_log.h"
#include "server/service.h"

namespace pi0::server {

class HttpFront;
class Session;
struct Upgrade;
struct WebSocket;

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, Service& service);
  ~Connection();

  void start();               // from here on the connection keeps itself alive until it ends
  void close_after_answer();  // a client's connection closes with 1001 after its next answer
  void go_away();             // the server shuts down: Session::go_away(), or without a session cut_off()
  void cut_off();             // ends the TCP connection at once

  bool is_client() const;    // a WebSocket, or accepted as one
  bool is_silent() const;    // no request has come, and no byte waits to be read
  bool is_answered() const;  // was a plain HTTP request; only has to close
  bool is_open() const;
  const boost::asio::ip::address& address() const { return address_; }  // of one machine: see shared_part()

 private:
  boost::asio::awaitable<void> run();
  boost::asio::awaitable<void> accept(const Upgrade& upgrade);

  Service& service_;
  boost::asio::ip::address address_;
  PeerLog log_;
  std::shared_ptr<WebSocket> ws_;  // its TCP socket is there from the start
  std::unique_ptr<HttpFront> front_;
  std::shared_ptr<Session> session_;  // null before the upgrade and after the session
};

}  // namespace pi0::server
