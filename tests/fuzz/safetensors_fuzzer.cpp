// Whatever a file holds: a CheckpointError, or tensors that can all be read.
#include "fuzz/input_file.h"
#include "model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const pi0::test::InputFile input(bytes, size);
  try {
    const pi0::model::SafetensorsFile file(input.path());
    for (const auto& [name, entry] : file.entries()) {
      const at::Tensor tensor = file.tensor(name);
      if (tensor.nbytes() != entry.end - entry.begin) std::abort();
    }
  } catch (const pi0::model::CheckpointError&) {
  }
  return 0;
}
