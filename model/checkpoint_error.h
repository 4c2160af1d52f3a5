// What every reader of checkpoints throws.
#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace pi0::model {

// Names the file, the tensor or array where there is one, what was found and what was expected.
class CheckpointError : public std::runtime_error {
  using runtime_error::runtime_error;
};

// Throws CheckpointError unless `names`, of what the model did not ask for, is empty. `kind`: tensor, for example.
void refuse_extra(const std::filesystem::path& folder, const std::string& kind, const std::vector<std::string>& names);

}  // namespace pi0::model
