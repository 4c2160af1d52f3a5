#include "server/listener.h"

#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <map>
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

constexpr std::size_t newcomers = 64;   // connections that have not become clients yet
constexpr rlim_t reserved_files = 128;  // for statistics, recordings, libraries and a GPU's driver

// So many sockets, or fewer where the system does not allow as many open files.
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

Listener::Listener(asio::io_context& io, Service& service) : service_(service), acceptor_(io), pause_(io) {
  most_sockets_ = sockets_within_limit(service.options.max_connections + newcomers);
  service.most_clients = most_sockets_ > newcomers ? most_sockets_ - newcomers : most_sockets_ / 2;
  if (service.most_clients < service.options.max_connections) {
    spdlog::warn("the system's limit of open files leaves places for {} clients, not {}", service.most_clients,
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
  if (open_sockets() >= most_sockets_ && !cut_off_newcomer()) return pause();
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
  pause_.expires_after(std::chrono::milliseconds(100));
  pause_.async_wait([this](const error_code&) {
    if (acceptor_.is_open()) accept_next();
  });
}

void Listener::take(tcp::socket socket) {
  error_code unknown;
  const asio::ip::address address = unmapped(socket.remote_endpoint(unknown).address());
  const bool is_own = address.is_loopback() || address == unmapped(socket.local_endpoint(unknown).address());
  if (!is_own && count_of(shared_part(address)) >= service_.options.max_connections_per_address) {
    service_.log.add(spdlog::level::warn, "connections refused",
                     "connection from " + address.to_string() + " refused: it has --max-connections-per-address open");
    return;
  }
  if (newcomers_here().size() >= newcomers) cut_off_newcomer();
  try {
    connections_.push_back(open_connection(std::move(socket), service_));
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

std::vector<std::shared_ptr<Connection>> Listener::newcomers_here() const {
  std::vector<std::shared_ptr<Connection>> found;
  for (const auto& weak : connections_) {
    auto connection = weak.lock();
    if (connection && connection->is_open() && !connection->is_client()) found.push_back(std::move(connection));
  }
  return found;
}

// Of those that are not clients yet, and may never be: of the address that has most of them, first who has its answer,
// then the oldest that says nothing, then the oldest. False when there is none.
bool Listener::cut_off_newcomer() {
  std::vector<std::shared_ptr<Connection>> here = newcomers_here();
  if (here.empty()) return false;
  std::map<asio::ip::address, std::size_t> counts;
  for (const auto& connection : here) ++counts[connection->address()];
  const auto busiest = std::ranges::max_element(counts, {}, [](const auto& count) { return count.second; })->first;
  std::erase_if(here, [&](const auto& connection) { return connection->address() != busiest; });
  auto loser = std::ranges::find_if(here, [](const auto& connection) { return connection->has_answer(); });
  if (loser == here.end())
    loser = std::ranges::find_if(here, [](const auto& connection) { return connection->is_silent(); });
  if (loser == here.end()) loser = here.begin();
  service_.log.add(
      spdlog::level::warn, "connections cut off that were no clients",
      "connection from " + (*loser)->address().to_string() + " cut off: it is no client yet, and others come");
  (*loser)->cut_off();
  return true;
}

}  // namespace pi0::server
