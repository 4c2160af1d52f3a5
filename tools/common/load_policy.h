// Loads a model, and a policy around it, as the options say.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "model/pi0.h"
#include "model/policy/policy.h"
#include "tools/common/model_options.h"
#include "tools/common/policy_parts.h"

namespace pi0::tools {

at::Device chosen_device(const std::string& name);  // throws when there is no such GPU

// Loads the weights with progress on stderr and sets libtorch's thread count. `warn` gets a line when the options ask
// for more threads than the process may use CPUs.
std::shared_ptr<model::Pi0> load_model(const ModelOptions& options, const model::ModelConfig& config,
                                       const std::function<void(const std::string&)>& warn);

using SampleMasked = std::function<at::Tensor(const model::ModelInputs& inputs, const at::Tensor& noise,
                                              std::int64_t steps, model::MaskedInputs masked)>;

struct LoadedPolicy {
  std::shared_ptr<model::Pi0> model;  // the policy's, for hooks
  std::unique_ptr<policy::Policy> policy;
  SampleMasked sample_actions;  // as the policy calls the model
  std::uint64_t seed;           // that of `options`, or the one that was drawn
};

// The parts and the weights. `warn` gets lines for the log.
LoadedPolicy load_policy(PolicyParts parts, const ModelOptions& options, std::function<void(const std::string&)> warn);

}  // namespace pi0::tools
