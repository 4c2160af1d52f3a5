// boost::asio::awaitable. Include this instead of Boost's header: that of 1.74 needs <utility> and does not include it.
#pragma once

// clang-format off
#include <utility>

#include <boost/asio/awaitable.hpp>
// clang-format on
