#include "tools/client/policy_client.h"

#include <fmt/format.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/websocket.hpp>
#include <stdexcept>

#include "protocol/msgpack_numpy.h"

namespace pi0::tools {
namespace {
namespace asio = boost::asio;
namespace beast = boost::beast;
}  // namespace

struct PolicyClient::Connection {
  asio::io_context context;
  beast::websocket::stream<asio::ip::tcp::socket> stream{context};
  protocol::Dict metadata;

  protocol::Dict read() {
    beast::flat_buffer buffer;
    stream.read(buffer);
    if (stream.got_text()) {
      throw std::runtime_error("the server refused: " + beast::buffers_to_string(buffer.data()));
    }
    const auto* data = static_cast<const std::uint8_t*>(buffer.data().data());
    return protocol::decode({data, buffer.size()});
  }
};

PolicyClient::PolicyClient(const std::string& host, std::uint16_t port) : connection_(std::make_unique<Connection>()) {
  try {
    asio::ip::tcp::resolver resolver(connection_->context);
    asio::connect(connection_->stream.next_layer(), resolver.resolve(host, std::to_string(port)));
    connection_->stream.read_message_max(0);  // chunks and recordings may be of any size
    connection_->stream.handshake(fmt::format("{}:{}", host, port), "/");
    connection_->metadata = connection_->read();
  } catch (const boost::system::system_error& error) {
    throw std::runtime_error(fmt::format("cannot connect to ws://{}:{}: {}", host, port, error.code().message()));
  }
}

PolicyClient::~PolicyClient() {
  beast::error_code ignored;
  connection_->stream.close(beast::websocket::close_code::normal, ignored);
}

const protocol::Dict& PolicyClient::metadata() const { return connection_->metadata; }

protocol::Dict PolicyClient::infer(const protocol::Dict& request) {
  const std::vector<std::uint8_t> bytes = protocol::encode(request);
  connection_->stream.binary(true);
  connection_->stream.write(asio::buffer(bytes));
  return connection_->read();
}

}  // namespace pi0::tools
