// Requests that hold several observations, {"batch": [observation, ...]}, as in openpi's pull request 941. Knows no
// sockets and no policy.
#pragma once

#include <cstddef>

#include "server/inference_worker.h"

namespace pi0::server {

// A function that passes the observations of such a request to `infer_batch`, all other requests to `infer`. The answer
// has the observations' arrays along a new first axis, other values as lists, and "batch_size" in "policy_timing". The
// first error of an observation is the request's. Refused are a batch that is empty, has more than `max_observations`,
// holds anything but maps, or stands beside another field.
BatchInferFunction with_batches(BatchInferFunction infer, BatchInferFunction infer_batch, std::size_t max_observations);

}  // namespace pi0::server
