// The HTTP side of a connection: reads one request and answers it, or accepts it as a client's WebSocket upgrade.
#pragma once

#include <boost/beast/core/flat_buffer.hpp>
#include <optional>

#include "server/awaitable.h"
#include "server/event_log.h"
#include "server/handshake.h"
#include "server/routes.h"
#include "server/service.h"
#include "server/transport.h"

namespace pi0::server {

struct Upgrade {
  Request request;
  boost::beast::flat_buffer received;  // what the client sent behind the request's header
};

class HttpFront {
 public:
  enum class Stage {
    connecting,  // TLS and HTTP header are not complete
    asking,      // the request is here and not yet answered
    answered,    // the response is sent; the connection only has to close
    client,      // the request is an upgrade and counts in Service::clients until this object ends
  };

  // All outlive this.
  HttpFront(MaybeTlsStream& stream, Service& service, const PeerLog& log)
      : stream_(stream), service_(service), log_(log) {}
  ~HttpFront();
  HttpFront(const HttpFront&) = delete;
  HttpFront& operator=(const HttpFront&) = delete;

  // The upgrade request; nothing when the request was answered or none came. Throws boost::system::system_error when
  // a response cannot be sent.
  boost::asio::awaitable<std::optional<Upgrade>> run();

  Stage stage() const { return stage_; }

 private:
  boost::asio::awaitable<std::optional<Upgrade>> read_request();  // nothing when none came
  std::optional<HttpResponse> respond(const Request& request);
  HttpResponse response_of(const Route& route);
  std::optional<HttpResponse> respond_without_route(const Request& request);
  boost::asio::awaitable<void> write(const Request& request, const HttpResponse& response);

  MaybeTlsStream& stream_;
  Service& service_;
  const PeerLog& log_;
  Stage stage_ = Stage::connecting;
};

}  // namespace pi0::server
