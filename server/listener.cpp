#include "server/listener.h"

#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "server/addresses.h"

namespace pi0::server {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr std::size_t max_pending = 64;  // connections that are no clients yet
constexpr rlim_t reserved_files = 128;   // for statistics, recordings, libraries and a GPU's driver

// `wanted`, or fewer when the system's limit on open files is too low even after it is raised.
std::size_t sockets_within_limit(std::size_t wanted) {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return wanted;
  const rlim_t needed = wanted + reserved_files;
  if (files.rlim_cur < needed) {
    files.rlim_cur = std::min(needed, files.rlim_max);
    ::setrlimit(RLIMIT_NOFILE, &files);
    ::getrlimit(RLIMIT_NOFILE, &files);
  }
  const rlim_t most = files.rlim_cur > reserved_files ? files.rlim_cur - reserved_files : files.rlim_cur / 2;
  return std::min(wanted, static_cast<std::size_t>(std::max<rlim_t>(most, 1)));
}

}  // namespace

Listener::Listener(asio::io_context& io, Service& service)
    : service_(service), acceptor_(io), pause_(io.get_executor()) {
  max_sockets_ = sockets_within_limit(service.options.max_connections + max_pending);
  service.max_clients = max_sockets_ > max_pending ? max_sockets_ - max_pending : max_sockets_ / 2;
  if (service.max_clients < service.options.max_connections) {
    spdlog::warn("the system's limit on open files allows {} clients instead of {}", service.max_clients,
                 service.options.max_connections);
  }
  const auto& [host, port] = std::tie(service.options.host, service.options.port);
  try {
    const auto found = tcp::resolver(io).resolve(host, std::to_string(port), tcp::resolver::passive);
    const tcp::endpoint endpoint = *found.begin();
    acceptor_.open(endpoint.protocol());
    acceptor_.set_option(tcp::acceptor::reuse_address(true));
    acceptor_.bind(endpoint);
    acceptor_.listen();
    port_ = acceptor_.local_endpoint().port();
    service_.is_on_loopback = unmapped(acceptor_.local_endpoint().address()).is_loopback();
  } catch (const boost::system::system_error& error) {
    if (error.code() == asio::error::address_in_use) {
      throw std::runtime_error("port " + std::to_string(port) + " on " + host + " is taken: " + error.code().message());
    }
    throw std::runtime_error("cannot listen on " + host + " port " + std::to_string(port) + ": " +
                             error.code().message());
  }
}

void Listener::close_after_answers() {
  for (const auto& weak : connections_) {
    if (const auto connection = weak.lock()) connection->close_after_answer();
  }
}

void Listener::stop() {
  acceptor_.close();
  pause_.cancel();
  for (const auto& weak : connections_) {
    if (const auto connection = weak.lock()) connection->go_away();
  }
}

void Listener::cut_off() {
  for (const auto& weak : connections_) {
    if (const auto connection = weak.lock()) connection->cut_off();
  }
}

bool Listener::has_connections() const {
  return !std::ranges::all_of(connections_, [](const auto& connection) { return connection.expired(); });
}

void Listener::accept_next() {
  if (open_sockets() >= max_sockets_ && !cut_off_pending()) return pause();
  acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
    if (!acceptor_.is_open()) return;
    if (error) {  // the client is gone already
      service_.log.add(spdlog::level::warn, "connections not accepted",
                       "cannot accept a connection: " + error.message());
      return pause();
    }
    connections_.remove_if([](const auto& connection) { return connection.expired(); });
    take(std::move(socket));
    accept_next();
  });
}

void Listener::pause() {
  pause_.start(std::chrono::milliseconds(100), [this] { accept_next(); });
}

void Listener::take(tcp::socket socket) {
  error_code unknown;
  const asio::ip::address address = unmapped(socket.remote_endpoint(unknown).address());
  const bool is_own = address.is_loopback() || address == unmapped(socket.local_endpoint(unknown).address());
  if (!is_own && count_of(shared_part(address)) >= service_.options.max_connections_per_address) {
    service_.log.add(spdlog::level::warn, "connections refused",
                     "connection from " + address.to_string() +
                         " refused: it already has --max-connections-per-address connections");
    return;
  }
  if (pending_connections().size() >= max_pending) cut_off_pending();
  try {
    const auto connection = std::make_shared<Connection>(std::move(socket), service_);
    connections_.push_back(connection);
    connection->start();
  } catch (const std::exception& failure) {  // no memory
    spdlog::error("cannot serve a connection: {}", failure.what());
  }
}

std::size_t Listener::open_sockets() const {
  return static_cast<std::size_t>(std::ranges::count_if(connections_, [](const auto& weak) {
    const auto connection = weak.lock();
    return connection && connection->is_open();
  }));
}

std::size_t Listener::count_of(const asio::ip::address& address) const {
  return static_cast<std::size_t>(std::ranges::count_if(connections_, [&](const auto& weak) {
    const auto connection = weak.lock();
    return connection && connection->is_open() && connection->address() == address;
  }));
}

std::vector<std::shared_ptr<Connection>> Listener::pending_connections() const {
  std::vector<std::shared_ptr<Connection>> found;
  for (const auto& weak : connections_) {
    auto connection = weak.lock();
    if (connection && connection->is_open() && !connection->is_client()) found.push_back(std::move(connection));
  }
  return found;
}

// Closes a pending connection, of the address that has the most of them: one that is answered, else the oldest that
// sent nothing, else the oldest. False when there is none.
bool Listener::cut_off_pending() {
  std::vector<std::shared_ptr<Connection>> pending = pending_connections();
  if (pending.empty()) return false;
  std::map<asio::ip::address, std::size_t> counts;
  for (const auto& connection : pending) ++counts[connection->address()];
  const auto busiest = std::ranges::max_element(counts, {}, [](const auto& count) { return count.second; })->first;
  std::erase_if(pending, [&](const auto& connection) { return connection->address() != busiest; });
  auto chosen = std::ranges::find_if(pending, [](const auto& connection) { return connection->is_answered(); });
  if (chosen == pending.end()) {
    chosen = std::ranges::find_if(pending, [](const auto& connection) { return connection->is_silent(); });
  }
  if (chosen == pending.end()) chosen = pending.begin();
  service_.log.add(spdlog::level::warn, "connections closed before they became clients",
                   "connection from " + (*chosen)->address().to_string() +
                       " closed: it is no client yet, and a new connection needs its place");
  (*chosen)->cut_off();
  return true;
}

}  // namespace pi0::server
