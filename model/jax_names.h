// Where openpi's JAX model keeps the parameters of its PyTorch model: one table for reading and writing.
// Reference: openpi/models/{gemma,lora,siglip,pi0}.py, and examples/convert_jax_model_to_pytorch.py.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/orbax/zarr.h"

namespace pi0::model {

at::ScalarType dtype_of(orbax::DType dtype);

// How a parameter lies in an array: "l 0/2 d f -> f d". Before the arrow, the array's axes: `l` is the layer, `0/2` the
// first of two parts, `1` an axis of that size, other letters are axes of the parameter. After it, the parameter's:
// "(n h)" is one axis that counts n and h.
class JaxAxes {
 public:
  explicit JaxAxes(std::string_view text);

  bool has_layers() const { return has_layers_; }
  std::int64_t part() const { return part_; }    // 0 without parts
  std::int64_t parts() const { return parts_; }  // 1 without

  // Whether an array of the first shape holds parameters of the second.
  bool fit(at::IntArrayRef array, at::IntArrayRef parameter) const;
  // What fits, for messages: "[layers, n, 2048, h] with n * h = 2048".
  std::string expected(at::IntArrayRef parameter) const;
  // The array's shape. `head_size` is the size of `h` where the parameter does not tell it.
  std::vector<std::int64_t> array_shape(std::int64_t layers, at::IntArrayRef parameter, std::int64_t head_size) const;

  // The array's axes without layers and parts.
  at::IntArrayRef part_shape(at::IntArrayRef array) const;

  // One layer's part of an array, contiguous, as the parameter, and back. The result is contiguous, and the argument's
  // memory if that needs no other order.
  at::Tensor to_parameter(const at::Tensor& part, at::IntArrayRef shape) const;
  at::Tensor to_part(const at::Tensor& parameter, at::IntArrayRef part_shape) const;

 private:
  // The sizes of the axes that are not 1, and where each letter of the parameter is among them.
  std::vector<std::int64_t> letter_sizes(at::IntArrayRef part_shape) const;
  std::vector<std::int64_t> order() const;

  bool has_layers_ = false;
  bool has_parts_ = false;
  std::int64_t part_ = 0, parts_ = 1;
  std::string from_;             // a letter, or 1, for each axis of a part
  std::vector<std::string> to_;  // the letters of each axis of the parameter
};

struct JaxPlace {
  std::string array;    // PaliGemma/llm/layers/mlp/linear
  const JaxAxes* axes;  // of the table
  std::int64_t layer;   // 0 without layers
};

class JaxNames {
 public:
  JaxNames();
  // Where the parameter of openpi's PyTorch name lies, if JAX's model has it.
  std::optional<JaxPlace> find(const std::string& parameter) const;
  // How an array is split. Null for an array that openpi does not have.
  const JaxAxes* axes(const std::string& array) const;

 private:
  struct Rule {
    std::string array;
    JaxAxes axes;
  };
  std::map<std::string, Rule> rules_;             // by the parameter's name, {} for the layer
  std::map<std::string, const JaxAxes*> arrays_;  // by the array's name
};

// The adapters of an array, which openpi adds to Gemma's layers only. Low-rank factors a [..., i, r] and b [..., r, o]
// of what is added to its last two axes.
struct LoraNames {
  std::string a, b;
};
LoraNames lora_names(const std::string& array);

}  // namespace pi0::model
