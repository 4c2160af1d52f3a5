// What make-checkpoint and convert share: a new checkpoint's folder, and its weights as openpi saves them.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "model/format_dtype.h"
#include "model/model_config.h"
#include "tools/common/stop_signals.h"

namespace pi0::tools {

// Runs `write`, which fills `folder`. The folder must be empty or absent before; if `write` throws, it is so after.
void fill_new_folder(const std::filesystem::path& folder, const std::function<void()>& write);

// One parameter, by openpi's name, in the dtype it is to be stored in.
using ReadParameter = std::function<at::Tensor(const std::string& name, at::IntArrayRef shape, at::ScalarType dtype)>;
using StoredDtype = std::function<at::ScalarType(const std::string& name)>;

// Weights in panels (model/packed_file.h), also rounded to these formats.
struct Packed {
  std::vector<formats::Format> formats;
};

// model.safetensors with `prefix` and the names that openpi's load_model expects: PaliGemma's embedding under its
// head's name, and heads that the model never reads. `read` is called once for each tensor, in the order in which a
// model is built. Shows progress, starting with `label`; throws what `read` and `stop` throw.
void write_openpi_weights(const std::filesystem::path& file, const model::ModelConfig& sizes, const std::string& prefix,
                          const StoredDtype& dtype, const ReadParameter& read, const std::string& label,
                          const StopSignals& stop, const std::optional<Packed>& packed = {});

// Values in all parameters that a model reads.
std::uint64_t parameter_count(const model::ModelConfig& sizes);

}  // namespace pi0::tools
