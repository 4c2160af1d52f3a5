#include "server/server.h"

#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "protocol/files.h"
#include "protocol/openpi_messages.h"
#include "server/backlog.h"
#include "server/deadline.h"
#include "server/end_signals.h"
#include "server/event_log.h"
#include "server/latency_summary.h"
#include "server/listener.h"
#include "server/metrics.h"
#include "server/service.h"
#include "server/tls.h"

namespace pi0::server {

namespace asio = boost::asio;

namespace {

// A session reads the endpoint whatever fields the policy reads.
ServerOptions with_endpoint(ServerOptions options) {
  std::vector<std::string>& fields = options.decode_limits.fields;
  if (!fields.empty()) fields.emplace_back(protocol::endpoint_key);
  return options;
}

}  // namespace

class Server::Impl {
 public:
  Impl(ServerOptions options, const protocol::Dict& metadata, BatchInferFunction infer, std::size_t max_batch,
       const std::function<void()>& warm_up)
      : options_(with_endpoint(std::move(options))),
        backlog_(options_.max_waiting_bytes),
        worker_(std::move(infer), max_batch, warm_up),
        service_{options_, protocol::encode(metadata), {}, worker_, metrics_, latencies_, backlog_, log_,
                 nullptr,  [this] { check_model(); }},
        listener_(io_, service_) {
    for (const int signal : end_signals()) signals_.add(signal);
    if (!options_.tls_certificates.empty()) {
      service_.tls = &tls_.emplace(tls_context(options_.tls_certificates, options_.tls_key));
    }
    add_route({"GET", "/healthz", [this] { return health(); }, Access::open});
    add_route({"GET", "/readyz", [this] { return health(); }, Access::open});
    add_route({"GET", "/livez", [] { return HttpResponse{200, "OK\n"}; }, Access::open});
    add_route({"GET", "/metrics",
               [this] { return HttpResponse{200, metrics_.text(), "text/plain; version=0.0.4; charset=utf-8"}; }});
    add_gauge({"pi0_queue_length", "Requests waiting for the model.",
               [this] { return std::vector{GaugeValue{static_cast<double>(worker_.waiting_count())}}; }});
    add_gauge({"pi0_model_busy", "1 while the model works on requests, else 0.",
               [this] { return std::vector{GaugeValue{worker_.is_busy() ? 1.0 : 0.0}}; }});
  }

  std::uint16_t port() const { return listener_.port(); }
  std::uint64_t answered() const { return metrics_.answered_count(); }

  void add_route(Route route) { service_.routes.push_back(std::move(route)); }

  void add_gauge(Gauge gauge) { metrics_.add(std::move(gauge)); }

  void on_signal(int signal, std::function<void()> work) {
    auto& watched = other_signals_.emplace_back(io_, signal);
    watch_signal(watched, std::move(work));
  }

  void on_second_signal(std::function<void()> work) { last_work_ = std::move(work); }

  void every(std::chrono::milliseconds interval, std::function<void()> work) {
    repeat(timers_.emplace_back(io_), interval, std::move(work));
  }

  void run() {
    await_end_signal();
    every(std::chrono::seconds(10), [this] { log_.flush(); });
    every(options_.summary_interval, [this] { latencies_.flush(); });
    listener_.accept_next();
    spdlog::info("serving on {}:{}", options_.host, port());
    spdlog::info("open to {}, {}, {}", options_.host == "0.0.0.0" ? "every network this machine is on" : options_.host,
                 options_.api_key.empty() ? "without an API key" : "with an API key",
                 options_.tls_certificates.empty() ? "not encrypted" : "with TLS");
    // Not io_.run(): the wait for a second signal would keep it running after the last connection.
    while (!stopping_ || listener_.has_connections()) {
      try {
        if (io_.run_one() == 0) break;
      } catch (const std::exception& error) {  // no memory for one client's work: the others continue
        spdlog::error("{}", error.what());
      }
    }
    signals_.cancel();  // from here on signals are ignored
    end_check_.cancel();
    io_.run();
    log_.flush();
    latencies_.flush();
    spdlog::info("all connections are closed");
    if (has_failed_) throw std::runtime_error("the model failed twice in a row, and --exit-on-failure is set");
  }

  void stop() {
    asio::post(io_, [this] { shut_down(); });
  }

 private:
  static void run_safely(const std::function<void()>& work) {
    try {
      work();
    } catch (const std::exception& error) {
      spdlog::error("{}", error.what());
    }
  }

  void await_end_signal() {
    signals_.async_wait([this](const boost::system::error_code& error, int signal) {
      if (error) return;  // stop() was called first
      spdlog::info("{}: no new {}; a second signal ends at once", name_of_signal(signal),
                   options_.drain_time.count() == 0 ? "requests" : "clients");
      signals_.async_wait([this](const boost::system::error_code& cancelled, int) {
        if (!cancelled) end_at_once();
      });
      drain_end_ = std::chrono::steady_clock::now() + options_.drain_time;
      drain();
    });
  }

  [[noreturn]] void end_at_once() {
    spdlog::warn("second signal: ending at once, the running request gets no answer");
    run_safely(last_work_);
    spdlog::shutdown();
    protocol::remove_unfinished_files();
    std::_Exit(1);
  }

  // `stopping_` is checked because a handler may already be queued when its wait is cancelled.
  void watch_signal(asio::signal_set& signals, std::function<void()> work) {
    signals.async_wait(
        [this, &signals, work = std::move(work)](const boost::system::error_code& cancelled, int) mutable {
          if (cancelled) return;
          run_safely(work);
          if (!stopping_) watch_signal(signals, std::move(work));
        });
  }

  void repeat(asio::steady_timer& timer, std::chrono::milliseconds interval, std::function<void()> work) {
    timer.expires_after(interval);
    timer.async_wait(
        [this, &timer, interval, work = std::move(work)](const boost::system::error_code& cancelled) mutable {
          if (cancelled) return;
          run_safely(work);
          if (!stopping_) repeat(timer, interval, std::move(work));
        });
  }

  bool is_failing() const { return worker_.faults_in_a_row() >= 2; }

  std::string failures() const {
    return "the model failed " + std::to_string(worker_.faults_in_a_row()) + " times in a row";
  }

  HttpResponse health() const {
    if (service_.is_draining) return {503, "the server is shutting down\n"};
    if (is_failing()) return {503, failures() + "\n"};
    return {200, "OK\n"};
  }

  void check_model() {
    if (!is_failing()) return;
    log_.add(spdlog::level::err, "failures of the model", failures() + ", and not because of a request");
    if (!options_.exit_on_failure || stopping_) return;
    has_failed_ = true;
    shut_down();
  }

  // Refuses new clients and serves the others on. Shuts down when they are gone, or the time is over.
  void drain() {
    service_.is_draining = true;
    const auto left = drain_end_ - std::chrono::steady_clock::now();
    if (left.count() <= 0 || service_.clients == 0) return shut_down();
    if (left <= options_.drain_time / 2) listener_.close_after_answers();
    end_check_.start(std::chrono::milliseconds(20), [this] { drain(); });
  }

  void shut_down() {
    if (std::exchange(stopping_, true)) return;
    service_.is_draining = true;
    end_ = std::chrono::steady_clock::now() + options_.end_timeout;
    for (asio::steady_timer& timer : timers_) timer.cancel();
    for (asio::signal_set& signals : other_signals_) signals.cancel();
    listener_.stop();
    end_connections_in_time();
  }

  // Cuts off the connections that are still open `end_timeout` after the last inference.
  void end_connections_in_time() {
    const auto now = std::chrono::steady_clock::now();
    if (worker_.is_busy()) end_ = now + options_.end_timeout;
    if (now >= end_) {
      spdlog::warn("cutting off the clients that did not close their connections in time");
      return listener_.cut_off();
    }
    end_check_.start(std::chrono::milliseconds(20), [this] { end_connections_in_time(); });
  }

  const ServerOptions options_;
  asio::io_context io_{1};
  asio::signal_set signals_{io_};
  bool stopping_ = false;
  bool has_failed_ = false;
  std::chrono::steady_clock::time_point drain_end_;  // set by the first signal
  std::chrono::steady_clock::time_point end_;        // when connections are cut off; set by shut_down()
  Deadline end_check_{io_.get_executor()};
  std::function<void()> last_work_ = [] {};
  std::deque<asio::signal_set> other_signals_;  // of on_signal()
  std::deque<asio::steady_timer> timers_;       // of every()
  EventLog log_;
  Metrics metrics_;
  LatencySummary latencies_;
  Backlog backlog_;
  std::optional<asio::ssl::context> tls_;
  InferenceWorker worker_;
  Service service_;
  Listener listener_;
};

Server::Server(ServerOptions options, const protocol::Dict& metadata, InferFunction infer)
    : Server(std::move(options), metadata, one_by_one(std::move(infer)), /*max_batch=*/1) {}
Server::Server(ServerOptions options, const protocol::Dict& metadata, BatchInferFunction infer, std::size_t max_batch,
               const std::function<void()>& warm_up)
    : impl_(std::make_unique<Impl>(std::move(options), metadata, std::move(infer), max_batch, warm_up)) {}
Server::~Server() = default;
std::uint16_t Server::port() const { return impl_->port(); }
std::uint64_t Server::answered() const { return impl_->answered(); }
void Server::add_route(Route route) { impl_->add_route(std::move(route)); }
void Server::add_gauge(Gauge gauge) { impl_->add_gauge(std::move(gauge)); }
void Server::on_signal(int signal, std::function<void()> work) { impl_->on_signal(signal, std::move(work)); }
void Server::on_second_signal(std::function<void()> work) { impl_->on_second_signal(std::move(work)); }
void Server::every(std::chrono::milliseconds interval, std::function<void()> work) {
  impl_->every(interval, std::move(work));
}
void Server::run() { impl_->run(); }
void Server::stop() { impl_->stop(); }

}  // namespace pi0::server
