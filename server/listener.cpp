#include "server/listener.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

namespace pi0::server {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

Listener::Listener(asio::io_context& io, const Service& service)
    : service_(service), acceptor_(io), pause_(io) {
  const auto& [host, port] = std::tie(service.options.host, service.options.port);
  try {
    const auto found =
        tcp::resolver(io).resolve(host, std::to_string(port), tcp::resolver::passive);
    const tcp::endpoint endpoint = *found.begin();
    acceptor_.open(endpoint.protocol());
    acceptor_.set_option(tcp::acceptor::reuse_address(true));
    acceptor_.bind(endpoint);
    acceptor_.listen();
    port_ = acceptor_.local_endpoint().port();
  } catch (const boost::system::system_error& error) {
    if (error.code() == asio::error::address_in_use) {
      throw std::runtime_error("port " + std::to_string(port) + " on " + host +
                               " is taken: " + error.code().message());
    }
    throw std::runtime_error("cannot listen on " + host + " port " + std::to_string(port) + ": " +
                             error.code().message());
  }
}

void Listener::stop() {
  acceptor_.close();
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
  acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
    if (!acceptor_.is_open()) return;
    if (error) {  // no file descriptors left, or the client is gone already
      spdlog::warn("cannot accept a connection: {}", error.message());
      pause_.expires_after(std::chrono::milliseconds(100));
      pause_.async_wait([this](const error_code&) { accept_next(); });
      return;
    }
    connections_.remove_if([](const auto& connection) { return connection.expired(); });
    const bool full = connections_.size() >= service_.options.max_connections;
    try {
      connections_.push_back(open_connection(std::move(socket), service_,
                                             full ? Upgrades::refused : Upgrades::accepted));
    } catch (const std::exception& failure) {  // no memory
      spdlog::error("cannot serve a connection: {}", failure.what());
    }
    accept_next();
  });
}

}  // namespace pi0::server
