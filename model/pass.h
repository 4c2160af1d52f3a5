// One forward pass of the model: what its stages read, write and report.
#pragma once

#include <ATen/ATen.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/execution.h"
#include "model/kv_cache.h"
#include "model/model_inputs.h"

namespace pi0::model {

struct Schedule;

// Intermediate tensors of one call by name, on the CPU, float32 (masks bool):
// image_features [cameras, B, 256, W], prefix_embeddings [B, L, W], prefix_pad_mask [B, L],
// prefix_{key,value}_layer{0,last} [B, KV heads, L, D] after rotary embedding, suffix_embeddings_step0,
// adarms_cond_step0 (Pi0.5), expert_output_step0, velocity [steps, B, A, N].
using Trace = std::map<std::string, Tensor>;

// Durations of one call's stages, in seconds.
struct StageSeconds {
  double vision = 0;            // vision tower and projector
  double prefix = 0;            // language model over the prefix
  std::vector<double> denoise;  // per step; their mean if all steps were recorded as one part
};

struct Prefix {
  Tensor tokens;    // [B, L, W]
  Tensor pad_mask;  // [B, L] bool, true for real tokens
  KvCache cache;
};

// The stages need all tensors on the model's device: see move_to().
struct Pass {
  ModelInputs in;
  Tensor noise;  // [B, A, N]
  std::int64_t num_steps = 0;
  std::vector<std::size_t> cameras;          // indices of the cameras that are computed
  std::int64_t prompt_positions = 0;         // how many of them are computed, from the first on
  std::shared_ptr<const Schedule> schedule;  // null: every step computes its own modulation
  std::vector<Tensor> image_tokens;          // per computed camera [B, patches, W]
  Prefix prefix;
  Tensor actions;  // [B, A, N]
};

// The tensors that the stages read, without those of skipped cameras.
std::vector<Tensor*> inputs_of(Pass& pass);
void move_to(Pass& pass, at::Device device);

using Stages = std::vector<WorkRecorder::Work>;  // vision, prefix, denoise

// Runs the stages. Times vision and prefix unless `seconds` is null; the denoise stage times its own steps.
void run(const Stages& stages, at::Device device, StageSeconds* seconds);

// Waits for the device before it reads the time, because devices work asynchronously.
class Stopwatch {
 public:
  explicit Stopwatch(at::Device device) : device_(device) {}
  double lap();  // seconds since the last lap or the construction

 private:
  const at::Device device_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace pi0::model
