// Serves a function from request to answer over openpi's WebSocket protocol, and plain HTTP routes
// beside it. Knows no policy and no model; metadata and function are given to it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "protocol/msgpack_numpy.h"
#include "protocol/value.h"
#include "server/gauge.h"
#include "server/inference_worker.h"
#include "server/routes.h"

namespace pi0::server {

struct ServerOptions {
  std::string host = "0.0.0.0";
  std::uint16_t port = 8000;  // 0 picks a free one
  std::size_t max_message_bytes = std::size_t{256} << 20;
  std::size_t max_connections = 512;
  std::chrono::milliseconds handshake_timeout{10'000};   // also for the closing handshake
  std::chrono::milliseconds end_timeout{5'000};          // for clients to close when the server ends
  std::chrono::milliseconds keepalive_interval{20'000};  // between pings, and for their pongs
  std::chrono::milliseconds write_timeout{60'000};       // for a client to take an answer
  std::chrono::milliseconds idle_timeout{0};             // between a client's requests; 0: any
  std::size_t max_requests_ahead = 8;                    // of one client that does not wait for answers
  std::size_t max_waiting_bytes = std::size_t{4} << 30;  // of all unanswered requests together
  protocol::DecodeLimits decode_limits = {};
  std::string api_key = {};  // empty: everybody may connect
  std::filesystem::path tls_certificates = {}, tls_key = {};  // PEM; empty: no TLS
};

class Server {
 public:
  // Opens the port; clients that connect before run() wait. Throws std::runtime_error when the
  // address is taken or not ours, or the certificates cannot be used.
  Server(ServerOptions options, const protocol::Dict& metadata, InferFunction infer);

  // The same with a function that answers up to `max_batch` requests that wait together.
  Server(ServerOptions options, const protocol::Dict& metadata, BatchInferFunction infer,
         std::size_t max_batch);
  ~Server();

  std::uint16_t port() const;

  // Before run(). These run on the network thread and must be quick; what they throw is logged.
  void add_route(Route route);  // /healthz and /metrics are there already
  void add_gauge(Gauge gauge);  // to /metrics
  void on_signal(int signal, std::function<void()> work);
  void on_second_signal(std::function<void()> work);  // then the process ends, with exit code 1
  void every(std::chrono::milliseconds interval, std::function<void()> work);

  // Serves on the calling thread until SIGINT, SIGTERM, SIGHUP (unless it is ignored) or stop(). Then no
  // new client is accepted, requests whose inference runs are answered, all others are dropped, and every
  // connection is closed with 1001; what is open `end_timeout` after the last inference is cut off. A
  // second signal ends the process at once.
  void run();

  void stop();  // from any thread

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pi0::server
