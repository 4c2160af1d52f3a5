#include "tools/serve/served_weights.h"

#include <stdexcept>
#include <utility>

#include "model/checkpoint_folder.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

struct stat facts_of(std::FILE* file) {
  struct stat facts {};
  ::fstat(::fileno(file), &facts);
  return facts;
}

}  // namespace

ServedWeights::ServedWeights(const ModelOptions& options) {
  if (options.random_weights) return;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(model::find_checkpoint(options.checkpoint_dir).weights)) {
    if (entry.path().extension() != ".safetensors") continue;
    File file{entry.path(), {std::fopen(entry.path().c_str(), "rb"), std::fclose}, {}};
    if (file.open == nullptr) continue;  // loading says why
    file.facts = facts_of(file.open.get());
    files_.push_back(std::move(file));
  }
}

void ServedWeights::check() const {
  for (const File& file : files_) {
    const struct stat now = facts_of(file.open.get());
    const bool is_same = now.st_size == file.facts.st_size && now.st_mtim.tv_sec == file.facts.st_mtim.tv_sec &&
                         now.st_mtim.tv_nsec == file.facts.st_mtim.tv_nsec;
    if (is_same) continue;
    throw std::runtime_error(file.path.string() +
                             ": was changed while its weights are served, so that nothing is answered any more; start "
                             "the server again, and replace checkpoints by new files");
  }
}

}  // namespace pi0::tools
