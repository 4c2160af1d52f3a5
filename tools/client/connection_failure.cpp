#include "tools/client/connection_failure.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>

#include <boost/asio/ssl/error.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/http/field.hpp>
#include <boost/beast/websocket/error.hpp>

namespace pi0::tools {
namespace {

namespace beast = boost::beast;
namespace websocket = beast::websocket;

// What an HTTP status means where a WebSocket was asked for.
std::string meaning_of(unsigned status, const ServerAccess& access) {
  switch (status) {
    case 401:
      return access.api_key.empty() ? "it wants an API key: --api-key-file"
                                    : "it does not accept the key of --api-key-file";
    case 403:
      return "it does not serve clients like this one";
    case 404:
      return "nothing is at " + access.url.path + ": the path or the port may be wrong";
    case 426:
      return "the request to upgrade to a WebSocket did not arrive: a proxy in between does not pass it on";
    case 503:
      return "it takes no more clients, or a proxy has no server behind it: try again later";
    default:
      return "a policy server answers with 101";
  }
}

}  // namespace

std::string tls_failure(const boost::system::error_code& error, const SSL* tls, const std::string& host) {
  const long result = SSL_get_verify_result(tls);
  if (result == X509_V_ERR_HOSTNAME_MISMATCH || result == X509_V_ERR_IP_ADDRESS_MISMATCH) {
    return "its certificate is not for " + host + " but for another host";
  }
  if (result != X509_V_OK) {
    return fmt::format("its certificate is not trusted ({}): --tls-ca names the file of the authority that signed it",
                       X509_verify_cert_error_string(result));
  }
  const bool is_other_protocol =
      error.category() == boost::asio::error::get_ssl_category() &&
      ERR_GET_REASON(static_cast<unsigned long>(error.value())) == SSL_R_WRONG_VERSION_NUMBER;
  return is_other_protocol ? "what listens there does not speak TLS; ws:// connects without"
                           : "no TLS: " + error.message();
}

std::string handshake_failure(const boost::system::error_code& error, const websocket::response_type& response,
                              const ServerAccess& access) {
  const boost::system::error_code declined = websocket::error::upgrade_declined, late = beast::error::timeout;
  if (error == late) return "what listens there did not answer in time";
  if (error != declined) {
    return fmt::format("what listens there is no WebSocket server ({}){}", error.message(),
                       access.url.has_tls ? "" : "; one with TLS needs wss://");
  }
  const auto reason = response.reason();
  std::string text =
      fmt::format("HTTP {} {}: {}", response.result_int(), std::string_view(reason.data(), reason.size()),
                  meaning_of(response.result_int(), access));
  if (!response.body().empty()) text += "\n  it says: " + response.body();
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace pi0::tools
