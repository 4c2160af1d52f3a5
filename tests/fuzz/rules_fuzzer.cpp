// Whatever a file holds: a RulesError, or rules.
#include "fuzz/input_file.h"
#include "quant/quant_plan.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const pi0::test::InputFile input(bytes, size);
  try {
    pi0::quant::read_rules(input.path());
  } catch (const pi0::quant::RulesError&) {
  }
  return 0;
}
