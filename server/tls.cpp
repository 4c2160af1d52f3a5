#include "server/tls.h"

#include <stdexcept>

namespace pi0::server {

namespace ssl = boost::asio::ssl;

ssl::context tls_context(const std::filesystem::path& certificates, const std::filesystem::path& key) {
  ssl::context context(ssl::context::tls_server);
  context.set_options(ssl::context::default_workarounds | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1 |
                      ssl::context::single_dh_use);
  boost::system::error_code error;
  context.use_certificate_chain_file(certificates.string(), error);
  if (error) {
    throw std::runtime_error(certificates.string() +
                             ": cannot be used as a PEM chain of certificates: " + error.message());
  }
  context.use_private_key_file(key.string(), ssl::context::pem, error);
  if (error) {
    throw std::runtime_error(key.string() + ": cannot be used as the PEM private key of " + certificates.string() +
                             ": " + error.message());
  }
  return context;
}

}  // namespace pi0::server
