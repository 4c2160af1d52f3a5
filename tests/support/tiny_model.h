// Small models and their inputs, from the goldens or at random.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "model/backends/cpu/cpu_backend.h"
#include "model/checkpoint.h"
#include "model/pi0.h"
#include "model/safetensors.h"

namespace pi0::test {

struct GoldenCase {
  std::filesystem::path folder;
  model::ModelConfig config;
  model::ModelInputs inputs;
  at::Tensor noise;
};

inline GoldenCase read_case(const std::string& name) {
  GoldenCase result{std::filesystem::path("goldens") / name, {}, {}, {}};
  result.config = model::read_architecture(result.folder / "architecture.json");
  const model::SafetensorsFile file(result.folder / "inputs.safetensors");
  const at::Tensor images = file.tensor("images"), masks = file.tensor("image_masks");
  for (std::int64_t camera = 0; camera < images.size(0); ++camera) {
    result.inputs.images.push_back(model::image_to_input(images[camera]));
    result.inputs.image_masks.push_back(masks[camera]);
  }
  result.inputs.tokens = file.tensor("tokens");
  result.inputs.token_mask = file.tensor("token_mask");
  result.inputs.state = file.tensor("state");
  result.noise = file.tensor("noise");
  return result;
}

// The same request with the first cameras and places of the prompt only: every site runs, on fewer rows.
inline GoldenCase shortened(GoldenCase golden, std::size_t cameras = 1) {
  constexpr std::int64_t places = 24;  // the last ones are padding
  golden.inputs.images.resize(cameras);
  golden.inputs.image_masks.resize(cameras);
  golden.inputs.tokens = golden.inputs.tokens.narrow(1, 0, places);
  golden.inputs.token_mask = golden.inputs.token_mask.narrow(1, 0, places);
  return golden;
}

inline std::unique_ptr<model::Pi0> load_case(const GoldenCase& golden, model::Precision precision,
                                             const model::Execution& execution = {}) {
  model::Checkpoint checkpoint(golden.folder);
  auto result = std::make_unique<model::Pi0>(golden.config, checkpoint, precision, execution);
  checkpoint.finish();
  return result;
}

// A CPU's fast kernels.
inline model::Execution fast(model::InstructionSet set) { return {.backend = model::cpu_backend(set)}; }

}  // namespace pi0::test
