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
#include <vector>

#include "protocol/msgpack_numpy.h"
#include "protocol/value.h"
#include "server/gauge.h"
#include "server/inference_worker.h"
#include "server/routes.h"

namespace pi0::server {

struct ServerOptions {
  std::string host = "0.0.0.0";
  std::uint16_t port = 8000;  // 0 picks a free one
  std::size_t max_message_bytes = std::size_t{1} << 30;
  std::size_t max_connections = 512;                     // of clients; others have a few places of their own
  std::size_t max_connections_per_address = 128;         // not of this machine's own
  std::chrono::milliseconds handshake_timeout{10'000};   // also for the closing handshake
  std::chrono::milliseconds end_timeout{5'000};          // for clients to close when the server ends
  std::chrono::milliseconds keepalive_interval{20'000};  // between pings, and for their pongs
  std::chrono::milliseconds write_timeout{60'000};       // for a client to take an answer
  std::chrono::milliseconds message_timeout{30'000};  // for a message to go on: 4 KiB for each second of it, or its end
  std::chrono::milliseconds idle_timeout{0};          // between a client's requests; 0: any
  std::size_t max_requests_ahead = 8;                 // of one client that does not wait for answers
  std::size_t max_waiting_bytes = std::size_t{4} << 30;  // of all unanswered requests together
  protocol::DecodeLimits decode_limits = {};
  std::string api_key = {};  // empty: everybody may connect
  std::vector<std::string> allowed_origins =
      {};  // of pages that may connect ("https://site"), or "*"; robots send none
  std::vector<std::string> allowed_hosts =
      {};                        // names of this server besides those of the loopback, if it is bound to that
  bool exit_on_failure = false;  // ends, with an error, once the model has failed twice in a row
  std::filesystem::path tls_certificates = {}, tls_key = {};  // PEM; empty: no TLS
};

class Server {
 public:
  // Opens the port; clients that connect before run() wait. Throws std::runtime_error when the
  // address is taken or not ours, or the certificates cannot be used.
  Server(ServerOptions options, const protocol::Dict& metadata, InferFunction infer);

  // The same with a function that answers up to `max_batch` requests that wait together. `warm_up` runs
  // before the port opens, on the thread that will run `infer`; what it throws is thrown here.
  Server(ServerOptions options, const protocol::Dict& metadata, BatchInferFunction infer, std::size_t max_batch,
         const std::function<void()>& warm_up = {});
  ~Server();

  std::uint16_t port() const;
  std::uint64_t answered() const;  // requests whose answer was sent, so far; from any thread

  // Before run(). These run on the network thread and must be quick; what they throw is logged.
  void add_route(Route route);  // /healthz, /livez, /readyz and /metrics are there already
  void add_gauge(Gauge gauge);  // to /metrics
  void on_signal(int signal, std::function<void()> work);
  void on_second_signal(std::function<void()> work);  // then the process ends, with exit code 1
  void every(std::chrono::milliseconds interval, std::function<void()> work);

  // Serves on the calling thread until SIGINT, SIGTERM, SIGHUP (unless it is ignored) or stop(). Then no
  // new client is accepted, requests whose inference runs are answered, all others are dropped, and every
  // connection is closed with 1001; what is open `end_timeout` after the last inference is cut off. A
  // second signal ends the process at once; later ones do nothing while this lives. Throws
  // std::runtime_error at the end when `exit_on_failure` was its reason.
  void run();

  void stop();  // from any thread

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pi0::server
