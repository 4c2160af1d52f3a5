// The one exception of everything that reads checkpoints.
#pragma once

#include <stdexcept>

namespace pi0::model {

// Names the file, the tensor or array where there is one, what was found and what was expected.
class CheckpointError : public std::runtime_error {
  using runtime_error::runtime_error;
};

}  // namespace pi0::model
