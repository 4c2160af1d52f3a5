#include "model/checkpoint_error.h"

#include <algorithm>

namespace pi0::model {

void refuse_extra(const std::filesystem::path& folder, const std::string& kind, const std::vector<std::string>& names) {
  constexpr std::size_t most_shown = 3;
  if (names.empty()) return;
  std::string text = folder.string() + ": holds " + std::to_string(names.size()) + " " + kind +
                     (names.size() == 1 ? "" : "s") + " that the model does not have: ";
  for (std::size_t i = 0; i < std::min(names.size(), most_shown); ++i) text += (i == 0 ? "'" : ", '") + names[i] + "'";
  throw CheckpointError(text + (names.size() > most_shown ? ", …" : "") + "; is this checkpoint from another config?");
}

}  // namespace pi0::model
