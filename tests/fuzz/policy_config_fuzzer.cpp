// Whatever a file holds: a PolicyConfigError, or a policy, its robot included.
#include "fuzz/input_file.h"
#include "model/policy/policy_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const pi0::test::InputFile input(bytes, size);
  try {
    pi0::policy::read_policy_config(input.path());
  } catch (const pi0::policy::PolicyConfigError&) {
  }
  return 0;
}
