// What all connections share. Outlives them; for the network thread.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "server/backlog.h"
#include "server/event_log.h"
#include "server/inference_worker.h"
#include "server/latency_summary.h"
#include "server/metrics.h"
#include "server/routes.h"
#include "server/server.h"

namespace pi0::server {

struct Service {
  const ServerOptions& options;
  std::vector<std::uint8_t> metadata;  // the first message to every client
  Routes routes;
  InferenceWorker& worker;
  Metrics& metrics;
  LatencySummary& latencies;
  Backlog& backlog;
  EventLog& log;
  boost::asio::ssl::context* tls;         // null: plain TCP
  std::function<void()> inference_ended;  // called after each inference that was not withdrawn
  std::size_t clients = 0;                // connections that are a WebSocket or have been accepted as one
  std::size_t max_clients = 0;            // --max-connections, or fewer where the system limits open files
  bool is_on_loopback = false;            // the listening socket is bound to a loopback address
  bool is_draining = false;               // no new clients; set once
};

}  // namespace pi0::server
