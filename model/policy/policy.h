// A policy as openpi serves it: a request's fields to an action chunk in the robot's units.
// Reference: Policy.infer of openpi's src/openpi/policies/policy.py and the transforms that
// create_trained_policy gives it. Knows no sockets, formats or weights.
//
// Shape letters: B requests in one call of the model, A action horizon, N action size of the model,
// T prompt places.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/pi0.h"
#include "model/policy/norm_stats.h"
#include "model/policy/normalizer.h"
#include "model/policy/policy_config.h"
#include "model/policy/prompt_tokenizer.h"
#include "model/policy/robot.h"
#include "protocol/value.h"

namespace pi0::policy {

// Pi0::sample_actions: noise and result [B, A, N] float32.
using SampleActions =
    std::function<at::Tensor(const model::ModelInputs& inputs, at::Tensor noise, std::int64_t num_steps)>;

struct PolicyOptions {
  std::optional<std::string> default_prompt = {};                            // comes before the config's own
  std::int64_t num_steps = 10;                                               // denoise steps
  std::uint64_t seed = 0;                                                    // of the noise of requests that bring none
  std::function<void(const std::string&)> warn = [](const std::string&) {};  // prompt cut
  model::MaskedInputs masked = model::MaskedInputs::keep;                    // what sample_actions does with them
  std::size_t max_prompt_bytes = std::size_t{16} << 10;                      // of a request's prompt, in UTF-8
};

// What became of one of several requests.
struct Reply {
  protocol::Dict answer;
  std::exception_ptr error = nullptr;  // null when there is an answer
  protocol::NdArray noise = {};        // the field "noise" with which this request has this answer
};

// For whoever has a part in the calls of the model, as statistics have.
struct CallWatch {
  // Of each request; only requests of one kind share a call. Empty: all are of kind false.
  std::vector<bool> kinds = {};
  // Runs `call` once, which calls the model and says which of its requests were answered.
  std::function<void(bool kind, const std::function<std::vector<bool>()>& call)> around =
      [](bool, const std::function<std::vector<bool>()>& call) { call(); };
};

// A request's field "noise". `noise` is [A, N] float32 on the CPU.
protocol::NdArray noise_field(const at::Tensor& noise);

// Calls that infer must not overlap: requests without noise draw from one generator.
class Policy {
 public:
  // Throws PolicyConfigError or NormStatsError when the parts do not fit each other.
  Policy(PolicyConfig config, NormStats norm_stats, PromptTokenizer tokenizer, SampleActions sample_actions,
         PolicyOptions options);

  // {"actions": float64 [A, robot's], "policy_timing": {"infer_ms": the model's time}}.
  //
  // An optional field "noise", float32 [A, N], makes the answer reproducible; otherwise noise comes
  // from torch's CPU generator, so a seed gives the draws of torch.normal.
  // Throws RequestError for a request at fault, and std::runtime_error when the model's actions are
  // not finite: no robot should move on them. `noise_used`, when given, becomes the field "noise"
  // with which this request has this answer.
  protocol::Dict infer(const protocol::Dict& request, protocol::NdArray* noise_used = nullptr);

  // The same for requests that came one after the other, with as few calls of the model as there can
  // be. Noise is drawn in their order. Each has its own error; an error of the model is that of all
  // requests of the call.
  std::vector<Reply> infer_together(std::span<const protocol::Dict> requests, const CallWatch& watch = {});

  // What the model sees of a request: a batch of one, state float64 [1, N], tokens int64 [1, T].
  model::ModelInputs prepare(const protocol::Dict& request) const;

  // The request's own noise, else the generator's next: [1, A, N] float32.
  at::Tensor noise_for(const protocol::Dict& request);

  // The answer without timing. `chunk` is [1, A, N] float32, `state` as in prepare()'s result.
  protocol::Dict finish(const at::Tensor& chunk, const at::Tensor& state) const;

  const protocol::Dict& metadata() const { return config_.metadata; }
  const PolicyConfig& config() const { return config_; }

 private:
  struct Sample {
    std::size_t request;  // its index
    bool kind;
    model::ModelInputs inputs;
    at::Tensor noise;
  };

  bool share_a_call(const Sample& a, const Sample& b) const;
  std::vector<bool> answer(std::span<const Sample> samples, std::vector<Reply>& replies) const;
  std::string prompt_of(const RobotObservation& seen) const;
  PromptTokens tokenize(const RobotObservation& seen, const std::vector<double>& state) const;

  PolicyConfig config_;
  Normalizer normalizer_;
  PromptTokenizer tokenizer_;
  SampleActions sample_actions_;
  PolicyOptions options_;
  at::Generator generator_;
};

}  // namespace pi0::policy
