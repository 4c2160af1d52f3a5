// Real-time chunking: a chunk is denoised so that it continues the previous one, of which the robot carries out actions
// meanwhile. Reference: LeRobot's policies/rtc/modeling_rtc.py (0.4.4), of the paper arXiv 2506.07339 without the
// derivative through the model, which LeRobot does not take either.
// Shape letters as in pi0.h.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace pi0::model {

using at::Tensor;

// What a chunk continues. Undefined tensors: nothing.
struct Continuation {
  Tensor target;   // [B, A, N] float32: the previous chunk's actions, normalised and padded
  Tensor weights;  // [B, A, 1] float32 in [0, 1]: how much each action is guided to its target
  Tensor held;     // [B, A, 1] bool: actions that are their targets from the first denoise step on
  bool is_defined() const { return target.defined(); }
};

// How weights fall (LeRobot's RTCAttentionSchedule).
enum class PrefixSchedule { linear, exponential, ones, zeros };

// Weights of a chunk of `total` actions, [total] float32: 1 for the first `start`, 0 from `end` on, and what `schedule`
// says between them. 0 <= start <= end <= total.
Tensor prefix_weights(PrefixSchedule schedule, std::int64_t start, std::int64_t end, std::int64_t total);

// The factor of guidance at a flow time in (0, 1]. At most LeRobot's default of 10, and at most the number of steps,
// with which a step moves an action onto its target and not past it.
double guidance_weight(float time, std::int64_t num_steps);

// The chunk from which denoising starts.
Tensor with_held(const Continuation& continuation, const Tensor& noise);

// The velocity that leads the chunk `actions` to its targets, from the model's `velocity`; both [B, A, N].
Tensor guided(const Continuation& continuation, const Tensor& actions, const Tensor& velocity, float time,
              std::int64_t num_steps);

}  // namespace pi0::model
