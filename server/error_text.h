// What a client reads about a failure.
#pragma once

#include <exception>
#include <string>

namespace pi0::server {

std::string error_text(const std::exception& error);  // what() as one line of valid UTF-8, never empty

}  // namespace pi0::server
