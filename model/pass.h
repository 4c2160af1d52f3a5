// One request on its way through the model: what its stages read and hand on, and what they report.
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

// Seconds of one call by stage.
struct StageSeconds {
  double vision = 0;            // cameras to tokens
  double prefix = 0;            // language model
  std::vector<double> denoise;  // per step; the mean of all where they are recorded as one
};

struct Prefix {
  Tensor tokens;    // [B, L, W]
  Tensor pad_mask;  // [B, L] bool, true for real tokens
  KvCache cache;
};

// All tensors are on the model's device.
struct Pass {
  ModelInputs in;
  Tensor noise;  // [B, A, N]
  std::int64_t num_steps = 0;
  std::vector<std::size_t> cameras;          // those that are computed
  std::int64_t prompt_positions = 0;         // likewise
  std::shared_ptr<const Schedule> schedule;  // null: every step computes its own modulation
  std::vector<Tensor> image_tokens;          // per computed camera [B, patches, W]
  Prefix prefix;
  Tensor actions;  // [B, A, N]
};

// The tensors that stages read; cameras that are not computed have none.
std::vector<Tensor*> inputs_of(Pass& pass);
void move_to(Pass& pass, at::Device device);

using Stages = std::vector<Recorder::Work>;  // vision, prefix, denoise

// Runs the stages; vision and prefix are timed unless `seconds` is null.
void run(const Stages& stages, at::Device device, StageSeconds* seconds);

// Waits for the device before it reads the time: a device's functions return before their work is done.
class Stopwatch {
 public:
  explicit Stopwatch(at::Device device) : device_(device) {}
  double lap();  // seconds since the last lap, or since it was made

 private:
  const at::Device device_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace pi0::model
