#include "server/addresses.h"

#include "support/catch.h"

using namespace pi0::server;
using boost::asio::ip::make_address;

TEST_CASE("a machine is an IPv4 address or an IPv6 network", "[server]") {
  CHECK(unmapped(make_address("::ffff:10.0.0.7")) == make_address("10.0.0.7"));
  CHECK(shared_part(make_address("10.0.0.7")) == make_address("10.0.0.7"));
  CHECK(shared_part(make_address("2001:db8:1:2:3:4:5:6")) == shared_part(make_address("2001:db8:1:2::1")));
  CHECK(shared_part(make_address("2001:db8:1:2::1")) != shared_part(make_address("2001:db8:1:3::1")));
  CHECK(shared_part(make_address("::1")) == make_address("::1"));
}
