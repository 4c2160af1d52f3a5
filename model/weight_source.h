// Where a model's parameters come from: a checkpoint, a random generator, or nowhere (shapes only).
// Modules ask for their tensors by checkpoint name while they are built.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/formats/format.h"

namespace pi0::model {

enum class Precision { bfloat16, float32 };

// How a parameter is held in memory. `rounding` is applied first: openpi rounds everything inside
// paligemma_with_expert to bfloat16 and stores some of it as float32 again
// (gemma_pytorch.py to_bfloat16_for_selected_params).
struct Storage {
  at::ScalarType rounding;
  at::ScalarType dtype;
};
Storage storage_of(std::string_view name, Precision precision);

// A weight in panels (backends/cpu/gemm.h): views of the file, which outlive the source, unless the values need another
// dtype.
struct StoredPanels {
  at::Tensor exact = {};  // undefined: not stored so
  std::function<at::Tensor(formats::Format)> rounded =
      nullptr;  // undefined for a format that is not stored; null: none
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // The parameter of that checkpoint name and shape, on the CPU. Throws CheckpointError when it is
  // missing or has another shape.
  virtual at::Tensor load(const std::string& name, at::IntArrayRef shape, Storage storage) = 0;

  // The same for a caller that only reads the tensor and drops it before this source is destroyed: it may be a view of
  // the file.
  virtual at::Tensor lend(const std::string& name, at::IntArrayRef shape, Storage storage) {
    return load(name, shape, storage);
  }

  // The parameter [Out, In] in panels, if it is stored so.
  virtual StoredPanels lend_panels(const std::string& /*name*/, at::IntArrayRef /*shape*/, Storage /*storage*/) {
    return {};
  }

  // Declares a parameter that checkpoints may hold but the model never reads.
  virtual void pass_over(const std::string& name, at::IntArrayRef shape) = 0;
};

// The parameters of a checkpoint.
class CheckpointSource : public WeightSource {
 public:
  struct Stored {
    std::string name;  // openpi's PyTorch name, or the array's of a JAX checkpoint
    std::string dtype;
    std::vector<std::int64_t> shape;
  };
  // What the files hold.
  virtual std::vector<Stored> stored() const = 0;

  // Call after the model is built. Throws CheckpointError that names the tensors which the model did not ask for.
  virtual void finish() const = 0;
};

// Records the parameters that a model asks for. Its tensors have shapes but no memory.
class ShapeRecorder : public WeightSource {
 public:
  struct Parameter {
    std::string name;
    std::vector<std::int64_t> shape;
  };
  at::Tensor load(const std::string& name, at::IntArrayRef shape, Storage storage) override;
  void pass_over(const std::string& name, at::IntArrayRef shape) override;
  const std::vector<Parameter>& parameters() const { return parameters_; }

 private:
  std::vector<Parameter> parameters_;
};

// Draws every parameter from a seeded generator: weights N(0, 1/fan_in), token embeddings N(0, 0.05²), all
// others N(0, 0.1²). The values depend only on the seed, the name and the shape.
class RandomWeights : public WeightSource {
 public:
  explicit RandomWeights(std::uint64_t seed) : seed_(seed) {}
  at::Tensor load(const std::string& name, at::IntArrayRef shape, Storage storage) override;
  void pass_over(const std::string&, at::IntArrayRef) override {}
  at::Tensor draw(const std::string& name, at::IntArrayRef shape) const;  // float32

 private:
  std::uint64_t seed_;
};

}  // namespace pi0::model
