// Which addresses belong to one machine.
#pragma once

#include <algorithm>
#include <boost/asio/ip/address.hpp>

namespace pi0::server {

// ::ffff:127.0.0.1 is 127.0.0.1.
inline boost::asio::ip::address unmapped(const boost::asio::ip::address& address) {
  if (!address.is_v6() || !address.to_v6().is_v4_mapped()) return address;
  return boost::asio::ip::make_address_v4(boost::asio::ip::v4_mapped, address.to_v6());
}

// The address; of IPv6 only the network (the first 64 bits), since one machine may use all addresses in it.
inline boost::asio::ip::address shared_part(const boost::asio::ip::address& address) {
  if (!address.is_v6() || address.is_loopback()) return address;
  auto bytes = address.to_v6().to_bytes();
  std::fill(bytes.begin() + 8, bytes.end(), 0);
  return boost::asio::ip::address_v6(bytes, address.to_v6().scope_id());
}

}  // namespace pi0::server
