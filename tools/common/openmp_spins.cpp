#include "tools/common/openmp_spins.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace pi0::tools {

void shorten_openmp_spins(char** argv) {
  constexpr const char *mark = "PI0_STARTED_AGAIN", *spins = "GOMP_SPINCOUNT";
  if (std::getenv(mark) == nullptr) {
    if (std::getenv(spins) != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
    std::error_code failure;
    const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", failure);
    ::setenv(mark, "yes", /*overwrite=*/1);
    ::setenv(spins, "1000", /*overwrite=*/1);
    if (!failure) ::execv(program.c_str(), argv);  // if that fails, it continues with the default
  }
  ::unsetenv(mark);
  ::unsetenv(spins);
}

}  // namespace pi0::tools
