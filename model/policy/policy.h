// A policy as openpi serves it: turns a request's fields into an action chunk in the robot's units.
// Reference: Policy.infer of openpi's src/openpi/policies/policy.py and the transforms that
// create_trained_policy gives it. Knows nothing of sockets, formats or weights.
//
// Shape letters: B requests in one call of the model, A action horizon, N action size of the model,
// T prompt positions.
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
#include "model/policy/previous_chunk.h"
#include "model/policy/prompt_tokenizer.h"
#include "model/policy/robot.h"
#include "protocol/value.h"

namespace pi0::policy {

// Pi0::sample_actions: noise and result [B, A, N] float32.
using SampleActions =
    std::function<at::Tensor(const model::ModelInputs& inputs, at::Tensor noise, std::int64_t num_steps)>;

struct PolicyOptions {
  std::optional<std::string> default_prompt = {};                            // takes precedence over the config's
  std::int64_t num_steps = 10;                                               // denoise steps
  std::uint64_t seed = 0;                                                    // of the noise for requests without noise
  std::function<void(const std::string&)> warn = [](const std::string&) {};  // prompt truncated
  model::MaskedInputs masked = model::MaskedInputs::keep;                    // what sample_actions does with them
  RequestLimits limits = {};
  bool allow_image_wrap = false;  // with Resize::pillow: floats outside [0, 1] wrap around, as openpi's do
};

// The outcome of one of several requests.
struct Reply {
  protocol::Dict answer;
  std::exception_ptr error = nullptr;  // null when there is an answer
  protocol::NdArray noise = {};        // the request field "noise" that reproduces the answer
};

// Observes the calls of the model, for example for statistics.
struct CallObserver {
  // Which requests are measured; only requests alike in this share a call. Empty: none.
  std::vector<bool> measured = {};
  std::function<void(std::span<const double> state)> saw_state = [](std::span<const double>) {};  // normalised, [N]
  // Must run `call` once. `call` runs the model and returns which of its requests were answered.
  std::function<void(bool measured, const std::function<std::vector<bool>()>& call)> run =
      [](bool, const std::function<std::vector<bool>()>& call) { call(); };
};

// A request's field "noise". `noise` is [A, N] float32 on the CPU.
protocol::NdArray noise_field(const at::Tensor& noise);

// Calls that infer must not overlap: requests without noise draw from one generator.
class Policy {
 public:
  // Throws PolicyConfigError or NormStatsError when the parts do not fit each other.
  Policy(PolicyConfig config, const NormStats& norm_stats, PromptTokenizer tokenizer, SampleActions sample_actions,
         PolicyOptions options);

  // {"actions": float64 [A, robot's], "policy_timing": {"infer_ms": the model's time}}.
  //
  // The fields of previous_chunk.h make the chunk continue the last one.
  // An optional field "noise", float32 [A, N], makes the answer reproducible; otherwise noise comes
  // from torch's CPU generator, so a seed gives the draws of torch.normal.
  // Throws RequestError for a request at fault, and std::runtime_error when the model's actions are
  // not finite: no robot should move on them. `noise_used`, if given, is set to the request field "noise" that
  // reproduces the answer.
  protocol::Dict infer(const protocol::Dict& request, protocol::NdArray* noise_used = nullptr);

  // The same for several requests, with as few calls of the model as possible. Noise is drawn in their order. Each
  // request has its own error; if the model fails, all requests of that call have its error.
  std::vector<Reply> infer_together(std::span<const protocol::Dict> requests, const CallObserver& observer = {});

  // The same for requests of which a client wants all answers or none: the first error is the error of all, with the
  // request's place when it is a RequestError ("batch[2]: ..."). After a RequestError the model does not run.
  std::vector<Reply> infer_batch(std::span<const protocol::Dict> requests, const CallObserver& observer = {});

  // The model's inputs for a request: a batch of one, state float64 [1, N], tokens int64 [1, T].
  model::ModelInputs prepare(const protocol::Dict& request) const;

  // The request's own noise, or else the generator's next: [1, A, N] float32.
  at::Tensor noise_for(const protocol::Dict& request);

  // The answer without timing. `chunk` is [1, A, N] float32, `state` as in prepare()'s result.
  protocol::Dict finish(const at::Tensor& chunk, const at::Tensor& state) const;

  const protocol::Dict& metadata() const { return config_.metadata; }
  const PolicyConfig& config() const { return config_; }

 private:
  struct Sample {
    std::size_t request;  // its index
    bool measured;
    model::ModelInputs inputs;
    at::Tensor noise;
  };

  ImageValues image_values() const;
  std::vector<Sample> samples_of(std::span<const protocol::Dict> requests, const CallObserver& observer,
                                 std::vector<Reply>& replies);
  void answer_all(std::vector<Sample> waiting, const CallObserver& observer, std::vector<Reply>& replies) const;
  bool is_relative(std::size_t dim) const;  // that dimension of actions, to the state
  model::Continuation continuation(PreviousChunk previous, const at::Tensor& state) const;
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
