// The server's TLS settings.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <filesystem>

namespace pi0::server {

// TLS 1.2 and later with a chain of certificates and its private key, both PEM. Throws
// std::runtime_error that names the file and what is wrong with it.
boost::asio::ssl::context tls_context(const std::filesystem::path& certificates, const std::filesystem::path& key);

}  // namespace pi0::server
