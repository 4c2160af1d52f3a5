// Whatever a file holds: a NormStatsError, or statistics.
#include "fuzz/input_file.h"
#include "model/policy/norm_stats.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const pi0::test::InputFile input(bytes, size);
  try {
    pi0::policy::read_norm_stats(input.path());
  } catch (const pi0::policy::NormStatsError&) {
  }
  return 0;
}
