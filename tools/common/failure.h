// The text of an exception.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

namespace pi0::tools {

// what(), without the stack trace that LibTorch adds to its own.
inline std::string failure_text(const std::exception& error) {
  const auto* of_libtorch = dynamic_cast<const c10::Error*>(&error);
  return of_libtorch != nullptr ? of_libtorch->what_without_backtrace() : error.what();
}

}  // namespace pi0::tools
