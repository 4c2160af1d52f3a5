#include "tools/common/openmp_spins.h"

#include <unistd.h>

#include <climits>
#include <cstdlib>

namespace pi0::tools {
namespace {

constexpr const char *mark = "PI0_STARTED_AGAIN", *spins = "GOMP_SPINCOUNT";

// Sanitizers are not set up yet, nor is the C library's `environ`.
[[gnu::no_sanitize("address", "thread", "undefined")]] void start_again(int, char** argv, char** environment) {
  ::environ = environment;
  if (std::getenv(mark) != nullptr || std::getenv(spins) != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr)
    return;
  char program[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return;
  program[length] = '\0';
  ::setenv(mark, "yes", /*overwrite=*/1);
  ::setenv(spins, "1000", /*overwrite=*/1);
  ::execv(program, argv);
  ::environ = environment;  // it continues with the default
}

// The linker calls these before the constructors of all libraries: LibTorch's take a tenth of a second.
[[gnu::section(".preinit_array"), gnu::used]] void (*const before_libraries)(int, char**, char**) = start_again;

}  // namespace

void forget_openmp_spins() {
  if (std::getenv(mark) == nullptr) return;
  ::unsetenv(mark);
  ::unsetenv(spins);
}

}  // namespace pi0::tools
