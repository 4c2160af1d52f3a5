// What the examples share: a model from a checkpoint folder, and one random observation for it.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <memory>
#include <stdexcept>

#include "model/checkpoint.h"
#include "model/pi0.h"

constexpr int denoise_steps = 10;

struct Example {
  std::unique_ptr<pi0::model::Pi0> model;
  pi0::model::ModelInputs inputs;
  at::Tensor noise;  // [1, action horizon, action dim]

  at::Tensor sample_actions() const { return model->sample_actions(inputs, noise, denoise_steps); }
};

// The one argument of an example is a folder with architecture.json and model.safetensors, as pi0 make-checkpoint makes
// it. Policies of full size have no architecture.json; see load_policy() in serve_quantized.cpp for those.
inline Example load_example(int argc, char** argv) {
  if (argc != 2) throw std::invalid_argument("expected one argument, the folder of a checkpoint");
  const std::filesystem::path folder = argv[1];
  const pi0::model::ModelConfig config = pi0::model::read_architecture(folder / "architecture.json");
  pi0::model::Checkpoint weights(folder);
  Example example;
  example.model =
      std::make_unique<pi0::model::Pi0>(config, weights, pi0::model::Precision::bfloat16, pi0::model::Execution{});
  weights.finish();  // throws if the checkpoint has tensors that no layer asked for

  at::manual_seed(0);
  for (int camera = 0; camera < 3; ++camera) {
    example.inputs.images.push_back(at::rand({1, 3, 224, 224}) * 2 - 1);
    example.inputs.image_masks.push_back(at::ones({1}, at::kBool));
  }
  example.inputs.tokens = at::randint(config.vocab_size, {1, config.max_token_len}, at::kLong);
  example.inputs.token_mask = at::ones({1, config.max_token_len}, at::kBool);
  example.inputs.state = at::zeros({1, config.action_dim});
  example.noise = at::randn({1, config.action_horizon, config.action_dim});
  return example;
}
