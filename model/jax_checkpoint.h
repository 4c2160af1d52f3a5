// A folder of parameters of openpi's JAX model, as orbax saves it, as a source of parameters: it is read as it is, LoRA
// folded in. Refuses missing, extra and misshapen arrays. Knows no robots and no statistics.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "model/checkpoint.h"
#include "model/jax_names.h"
#include "model/orbax/array_store.h"
#include "model/orbax/read_ahead.h"
#include "model/weight_source.h"

namespace pi0::model {

// Parameters of the same array are decoded once if asked for layer by layer, as Pi0 does; any order works. Beside what
// it returns it holds a layer of each array in use, and up to 768 MiB that threads decode ahead.
class JaxCheckpoint : public CheckpointSource {
 public:
  // `params`: the folder with manifest.ocdbt, or with a folder per array. Throws CheckpointError.
  explicit JaxCheckpoint(const std::filesystem::path& params, LoadProgress progress = {});

  // What the folder holds, by the names in openpi's JAX model, such as PaliGemma/img/head/bias: without the outer
  // `params` and the `value` that training saves append.
  const std::map<std::string, orbax::ArrayInfo>& arrays() const { return arrays_; }
  std::uint64_t total_bytes() const { return total_bytes_; }
  bool has_lora() const;

  at::Tensor load(const std::string& name, at::IntArrayRef shape, Storage storage) override;
  void pass_over(const std::string&, at::IntArrayRef) override {}  // JAX's model has no such thing

  std::vector<Stored> stored() const override;
  void finish() const override;

 private:
  // An index along the array's layers and a part of that slice; 0 where the array has no layers or no parts.
  using Piece = std::pair<std::int64_t, std::int64_t>;

  void start();
  std::int64_t pieces(const std::string& array) const;
  const JaxAxes* axes_of(const std::string& array) const;  // null when openpi has no such array
  void check(const JaxPlace& place, const std::string& name, at::IntArrayRef shape) const;
  at::Tensor slice(const std::string& array, std::int64_t index);
  at::Tensor whole(const std::string& array, at::ScalarType dtype);
  at::Tensor layer_part(const std::string& array, Piece piece, std::int64_t parts);
  at::Tensor with_lora(const JaxPlace& place, const at::Tensor& weight);
  void mark_read(const std::string& array, Piece piece);

  std::filesystem::path folder_;
  LoadProgress progress_;
  JaxNames names_;
  orbax::ArrayStore store_;
  std::map<std::string, orbax::ArrayInfo> arrays_;
  std::map<std::string, std::string> stored_names_;  // by the name in arrays_
  std::map<std::string, std::string> adapted_;       // LoRA's arrays to the one that they change
  std::map<std::string, std::set<Piece>> read_;
  std::uint64_t done_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
  std::map<std::string, std::size_t> numbers_;  // in ahead_
  std::unique_ptr<orbax::ReadAhead> ahead_;     // from the first parameter on
};

}  // namespace pi0::model
