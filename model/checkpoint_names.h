// What the tensors of safetensors checkpoints are called: openpi's names, LeRobot's of every version, those of
// transformers before 4.52, and what torch.compile, DistributedDataParallel and PEFT put in front. Knows names only.
// Reference: _fix_pytorch_state_dict_keys and _transform_state_dict_keys of LeRobot's policies/pi0/modeling_pi0.py.
#pragma once

#include <string>
#include <string_view>

namespace pi0::model {

struct TensorName {
  enum class Kind {
    parameter,   // of the model, or unknown
    statistics,  // of normalization, which LeRobot up to 0.3 keeps among the weights
    adapter      // part of a PEFT adapter that is not merged into the weights
  };
  Kind kind = Kind::parameter;
  std::string name;  // a parameter's in openpi; of statistics, LeRobot's; otherwise as in the file
};

// An unknown name stays as it is.
TensorName tensor_name(std::string_view in_file);

}  // namespace pi0::model
