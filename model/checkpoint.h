// A folder of safetensors files as a source of parameters: names to tensors, one file or several shards.
// Refuses missing, extra and misshapen tensors, and damaged ones of packed files. Knows no robots and no statistics.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "model/packed_file.h"
#include "model/safetensors.h"
#include "model/weight_source.h"

namespace pi0::model {

// PaliGemma ties these two; a file may hold either name.
inline constexpr const char* embedding_name =
    "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight";
inline constexpr const char* embedding_alias = "paligemma_with_expert.paligemma.lm_head.weight";

inline constexpr const char* safetensors_name = "model.safetensors";
inline constexpr const char* safetensors_index_name = "model.safetensors.index.json";  // of shards

// Called after each tensor with the bytes read so far and the total.
using LoadProgress = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

class Checkpoint : public CheckpointSource {
 public:
  // Opens model.safetensors, or the shards of model.safetensors.index.json, under any names of checkpoint_names.h.
  // Throws CheckpointError; its message for the tensors of a PEFT adapter says what to do.
  explicit Checkpoint(const std::filesystem::path& folder, LoadProgress progress = {});

  at::Tensor load(const std::string& name, at::IntArrayRef shape, Storage storage) override;
  at::Tensor lend(const std::string& name, at::IntArrayRef shape, Storage storage) override;
  StoredPanels lend_panels(const std::string& name, at::IntArrayRef shape, Storage storage) override;
  void pass_over(const std::string& name, at::IntArrayRef shape) override;

  std::vector<Stored> stored() const override;
  void finish() const override;

  // Statistics of normalization that lie among the weights (LeRobot up to 0.3), by LeRobot's names. They are not
  // parameters.
  std::map<std::string, at::Tensor> statistics() const;

 private:
  struct Place {
    std::size_t file;
    std::string name;  // in that file
    std::vector<std::int64_t> shape;
    bool in_panels = false;
  };
  void open(const std::filesystem::path& file, const std::set<std::string>* expected);
  void add(const std::string& name, Place place);
  const Place* find(const std::string& name) const;
  const Place& found(const std::string& name, at::IntArrayRef shape) const;
  void check_shape(const Place& place, const std::string& name, at::IntArrayRef shape) const;
  void mark_read(const Place& place);  // counts each tensor once

  std::filesystem::path folder_;
  LoadProgress progress_;
  std::vector<std::shared_ptr<const PackedFile>> files_;
  std::map<std::string, Place> places_;  // by openpi's name
  std::map<std::string, Place> statistics_;
  std::set<const Place*> read_;
  std::uint64_t done_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace pi0::model
