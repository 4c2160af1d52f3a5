#include "tools/common/bus_errors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "support/catch.h"

TEST_CASE("a mapped file that is cut short is named and ends the program with 1", "[tools]") {
  const std::filesystem::path file = std::filesystem::temp_directory_path() / "cut short.safetensors";
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
  REQUIRE(::ftruncate(descriptor, 1 << 20) == 0);
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    pi0::tools::explain_bus_errors("pi0");
    const auto* const bytes =
        static_cast<const volatile char*>(::mmap(nullptr, 1 << 20, PROT_READ, MAP_PRIVATE, descriptor, 0));
    if (::ftruncate(descriptor, 0) != 0) ::_exit(9);
    ::_exit(bytes[5000]);
  }
  ::close(ends[1]);
  std::string text;
  for (char c = 0; ::read(ends[0], &c, 1) == 1;) text += c;
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 1);
  CHECK(text == "pi0: " + file.string() + ": became shorter, or could not be read, while its contents were needed\n");
  std::filesystem::remove(file);
}
