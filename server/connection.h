// One client from accept to end: HTTP request, upgrade, metadata, then request after request.
// Everything runs on the network thread; only the inference itself is handed to the worker.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <cstdint>
#include <memory>
#include <vector>

#include "server/backlog.h"
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
  boost::asio::ssl::context* tls;  // null: plain TCP
};

enum class Upgrades { accepted, refused };  // refused: too many connections, HTTP routes only

class Connection {
 public:
  virtual ~Connection() = default;

  // The server ends: answers the request whose inference runs, then closes with 1001.
  virtual void go_away() = 0;

  virtual void cut_off() = 0;  // ends the TCP connection at once
};

// The connection owns itself until its end; the pointer is for go_away().
std::weak_ptr<Connection> open_connection(boost::asio::ip::tcp::socket socket,
                                          const Service& service, Upgrades upgrades);

}  // namespace pi0::server
