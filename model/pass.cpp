#include "model/pass.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

namespace pi0::model {

std::vector<Tensor*> inputs_of(Pass& pass) {
  std::vector<Tensor*> inputs = {&pass.in.tokens, &pass.in.token_mask, &pass.in.state, &pass.noise};
  if (Continuation& continuation = pass.in.continuation; continuation.is_defined()) {
    inputs.insert(inputs.end(), {&continuation.target, &continuation.weights, &continuation.held});
  }
  for (const std::size_t camera : pass.cameras) {
    inputs.push_back(&pass.in.images[camera]);
    inputs.push_back(&pass.in.image_masks[camera]);
  }
  return inputs;
}

void move_to(Pass& pass, at::Device device) {
  for (Tensor* input : inputs_of(pass)) *input = input->to(device);
}

void run(const Stages& stages, at::Device device, StageSeconds* seconds) {
  if (seconds == nullptr) {
    for (const WorkRecorder::Work& stage : stages) stage();
    return;
  }
  Stopwatch watch(device);
  stages[0]();
  seconds->vision = watch.lap();
  stages[1]();
  seconds->prefix = watch.lap();
  stages[2]();
}

double Stopwatch::lap() {
  if (!device_.is_cpu()) c10::impl::VirtualGuardImpl(device_.type()).synchronizeDevice(device_.index());
  const auto now = std::chrono::steady_clock::now();
  return std::chrono::duration<double>(now - std::exchange(start_, now)).count();
}

}  // namespace pi0::model
