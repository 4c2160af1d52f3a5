// The files of weights that a running server reads from their maps. A change of one in place would change what a robot
// does.
#pragma once

#include <sys/stat.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include "tools/common/model_options.h"

namespace pi0::tools {

class ServedWeights {
 public:
  // Call it before the weights are loaded. A checkpoint of JAX and random weights have no such file.
  explicit ServedWeights(const ModelOptions& options);

  // Throws std::runtime_error that names a file whose size or time of modification has changed since. A new file that
  // replaced one under its name does not count.
  void check() const;

 private:
  struct File {
    std::filesystem::path path;
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> open;
    struct stat facts;
  };
  std::vector<File> files_;
};

}  // namespace pi0::tools
