// Serves a function from request to answer over openpi's WebSocket protocol, and plain HTTP routes on the same port.
// Knows no policy and no model: the caller passes the metadata and the function.
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
  std::size_t max_connections = 512;                     // clients; 64 more connections may be open that are none yet
  std::size_t max_connections_per_address = 128;         // of another machine
  std::chrono::milliseconds handshake_timeout{10'000};   // for TLS, HTTP and the closing handshake
  std::chrono::milliseconds end_timeout{5'000};          // for clients to close when the server shuts down
  std::chrono::milliseconds drain_time{0};               // from the first signal until the server shuts down
  std::chrono::milliseconds keepalive_interval{20'000};  // between pings; a client must send something in each interval
  std::chrono::milliseconds write_timeout{60'000};       // for a client to read an answer
  // In each such interval a message must end, or 4 KiB per second of it must arrive.
  std::chrono::milliseconds message_timeout{30'000};
  std::chrono::milliseconds idle_timeout{0};             // between a client's requests; 0: no limit
  std::chrono::milliseconds summary_interval{60'000};    // between the log's lines about latencies
  std::size_t max_requests_ahead = 8;                    // read from one client before it has its answers
  std::size_t max_waiting_bytes = std::size_t{4} << 30;  // of all clients' unanswered requests
  protocol::DecodeLimits decode_limits = {};
  std::string api_key = {};  // empty: clients need none
  // Sites whose pages may connect ("https://site"), or "*". Robots send no Origin and need not be listed.
  std::vector<std::string> allowed_origins = {};
  // For a server bound to a loopback address: its names besides localhost.
  std::vector<std::string> allowed_hosts = {};
  bool exit_on_failure = false;                               // run() throws once the model has failed twice in a row
  std::filesystem::path tls_certificates = {}, tls_key = {};  // PEM; empty: no TLS
};

class Server {
 public:
  // Opens the port; clients that connect before run() wait. Throws std::runtime_error when the address is in use or not
  // this machine's, or the certificates cannot be used.
  Server(ServerOptions options, const protocol::Dict& metadata, InferFunction infer);

  // The same with a function that answers up to `max_batch` waiting requests at once. `warm_up` runs before the port
  // opens, on the thread that will run `infer`; its exceptions are thrown here.
  Server(ServerOptions options, const protocol::Dict& metadata, BatchInferFunction infer, std::size_t max_batch,
         const std::function<void()>& warm_up = {});
  ~Server();

  std::uint16_t port() const;
  std::uint64_t answered() const;  // observations whose answer was sent; from any thread

  // Call these before run(). The functions run on the network thread and must be quick; their exceptions are logged.
  void add_route(Route route);  // besides /healthz, /livez, /readyz and /metrics
  void add_gauge(Gauge gauge);  // to /metrics
  void on_signal(int signal, std::function<void()> work);
  void on_second_signal(std::function<void()> work);  // after it the process ends with exit code 1
  void every(std::chrono::milliseconds interval, std::function<void()> work);

  // Serves on the calling thread, which becomes the network thread, until SIGINT, SIGTERM, SIGHUP (unless it is
  // ignored) or stop(). Then it accepts no new connection, answers the requests that the model works on, drops the
  // others, and closes every connection with 1001; connections that are open `end_timeout` after the last inference are
  // cut off. With a `drain_time`, a signal first refuses new clients with 503 and lets /healthz and /readyz say so.
  // Clients that are connected are served on; in the second half of the time each is closed with 1001 right after an
  // answer.
  // The server shuts down when the last is gone or the time is over. A second signal ends the process at once; signals
  // after run() do nothing while the Server lives. Throws std::runtime_error in the end if the model's failures made it
  // stop (`exit_on_failure`).
  void run();

  void stop();  // from any thread; shuts down without a drain

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pi0::server
