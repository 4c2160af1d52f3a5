// Writes parameters as openpi's JAX model keeps them and orbax saves them, the way JaxCheckpoint reads them.
#pragma once

#include <ATen/ATen.h>

#include <functional>
#include <string>

#include "model/model_config.h"
#include "model/orbax/array_writer.h"

namespace pi0::model {

// The parameter of openpi's PyTorch name and that shape, float32, on the CPU.
using DrawParameter = std::function<at::Tensor(const std::string& name, at::IntArrayRef shape)>;

struct JaxForm {
  orbax::DType dtype = orbax::DType::float32;
  orbax::Form form = orbax::Form::ocdbt;
};

// All parameters of a model of these sizes. `write` makes the files of a folder of parameters (a checkpoint's params/).
// Each parameter is drawn once, when it is written; beside it no more than a second one is in memory. Throws what
// `write` and `draw` throw.
void write_jax_params(const orbax::WriteFile& write, const ModelConfig& config, const DrawParameter& draw,
                      const JaxForm& form = {});

}  // namespace pi0::model
