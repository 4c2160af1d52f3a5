// One client from accept to end: HTTP request, upgrade, metadata, then request after request.
// Everything runs on the network thread; only reading requests and the inference itself are the worker's.
#pragma once

#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "server/backlog.h"
#include "server/event_log.h"
#include "server/inference_worker.h"
#include "server/metrics.h"
#include "server/routes.h"
#include "server/server.h"

namespace pi0::server {

// What all connections share; outlives them.
struct Service {
  const ServerOptions& options;
  std::vector<std::uint8_t> metadata;  // the first frame
  Routes routes;
  InferenceWorker& worker;
  Metrics& metrics;
  Backlog& backlog;
  EventLog& log;
  boost::asio::ssl::context* tls;         // null: plain TCP
  std::function<void()> inference_ended;  // after each that has an outcome
  std::size_t clients = 0;                // connections that are WebSockets, or are to be
  bool is_on_loopback = false;            // the listening socket
  std::size_t most_clients = 0;           // --max-connections, or what the system's limits leave of it
};

class Connection {
 public:
  virtual ~Connection() = default;

  // The server ends: answers the request whose inference runs, then closes with 1001.
  virtual void go_away() = 0;

  virtual void cut_off() = 0;           // ends the TCP connection at once
  virtual bool is_client() const = 0;   // admitted: a WebSocket, or about to be one
  virtual bool is_silent() const = 0;   // no client, and nothing that it sent waits to be read or answered
  virtual bool has_answer() const = 0;  // to a plain HTTP request; it only has to close
  virtual bool is_open() const = 0;
  virtual const boost::asio::ip::address& address() const = 0;  // of IPv6 the part that is one machine's
};

// The connection owns itself until its end.
std::weak_ptr<Connection> open_connection(boost::asio::ip::tcp::socket socket, Service& service);

}  // namespace pi0::server
