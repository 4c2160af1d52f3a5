// The request that `pi0 bench` times: the same pictures, state, prompt and noise in every run.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "model/pi0.h"
#include "model/policy/policy.h"
#include "tools/common/model_options.h"
#include "tools/common/policy_parts.h"

namespace pi0::tools {

struct CaseSize {
  std::int64_t cameras = 2;  // that are seen; the model's other ones are masked
  std::int64_t prompt_tokens = 23;
  std::int64_t batch = 1;  // samples that are answered together
};

// Seconds of one run.
struct CaseSeconds {
  double wire = 0;        // request from bytes, answer to bytes
  double transforms = 0;  // request to tensors, actions to answer
  double model = 0;
  model::StageSeconds stages;  // of the model

  double total() const { return wire + transforms + model; }
};

class BenchCase {
 public:
  // `size` fits the policy. The model must outlive the case.
  BenchCase(PolicyParts parts, const model::Pi0& model, const CaseSize& size, const ModelOptions& options);

  // A whole request, as the server answers it, but for the socket.
  CaseSeconds run() const;

  std::int64_t num_steps() const { return num_steps_; }

 private:
  model::ModelInputs inputs_of(const protocol::Dict& request) const;

  const model::Pi0& model_;
  const CaseSize size_;
  const model::MaskedInputs masked_;
  const std::int64_t num_steps_;
  std::vector<std::uint8_t> request_;  // msgpack
  at::Tensor tokens_, token_mask_;     // [1, T]: as many as `size` says, independent of the prompt
  at::Tensor noise_;                   // [B, A, N]
  policy::Policy policy_;
};

}  // namespace pi0::tools
