#include "model/checkpoint.h"

#include <algorithm>

#include "model/backends/cpu/gemm.h"
#include "model/checkpoint_names.h"
#include "model/format_dtype.h"
#include "model/json_fields.h"

namespace pi0::model {
namespace {

namespace fs = std::filesystem;

// Hugging Face's Gemma has it; openpi removes it from the expert, which embeds no tokens (gemma_pytorch.py).
constexpr const char* expert_embedding_name = "paligemma_with_expert.gemma_expert.model.embed_tokens.weight";

// Maps each shard file to the names of the tensors that the index places in it.
std::map<std::string, std::set<std::string>> read_index(const fs::path& path) {
  Json json;
  try {
    json = read_json(path);
  } catch (const JsonFileError& error) {
    throw CheckpointError(error.what());
  }
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object() ||
      json["weight_map"].empty()) {
    throw CheckpointError(path.string() + ": has no weight_map of tensor names to files");
  }
  std::map<std::string, std::set<std::string>> shards;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    const fs::path shard = file.is_string() ? fs::path(file.get<std::string>()) : fs::path();
    if (shard.empty() || shard.filename() != shard) {
      throw CheckpointError(path.string() + ": tensor '" + tensor + "' is placed in " + shown(file) +
                            ", expected the name of a file beside the index");
    }
    shards[shard.string()].insert(tensor);
  }
  return shards;
}

constexpr const char* how_to_merge = "; merge it into the weights with merge_and_unload() and save the whole model";

std::string text_of(at::ScalarType dtype) {
  const bool is_float = dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf;
  return is_float ? std::string(name_of(format_of(dtype))) : c10::toString(dtype);
}

}  // namespace

Checkpoint::Checkpoint(const fs::path& folder, LoadProgress progress)
    : folder_(folder), progress_(std::move(progress)) {
  if (fs::exists(folder / safetensors_name)) {
    open(folder / safetensors_name, nullptr);
  } else if (fs::exists(folder / safetensors_index_name)) {
    for (const auto& [shard, tensors] : read_index(folder / safetensors_index_name)) {
      open(folder / shard, &tensors);
    }
  } else {
    throw CheckpointError(folder.string() + ": holds neither " + safetensors_name + " nor " + safetensors_index_name);
  }
  const bool has_model =
      std::ranges::any_of(places_, [](const auto& place) { return place.first.starts_with("paligemma_with_expert."); });
  if (!has_model) {
    throw CheckpointError(folder.string() + ": holds no tensor of a Pi0 or Pi0.5 model ('paligemma_with_expert.…')" +
                          (places_.empty() ? "" : "; found '" + places_.begin()->first + "' and others"));
  }
}

void Checkpoint::open(const fs::path& path, const std::set<std::string>* expected) {
  const PackedFile& packed = *files_.emplace_back(std::make_shared<const PackedFile>(SafetensorsFile(path)));
  const SafetensorsFile& file = packed.file();
  for (const auto& [name, entry] : file.entries()) {
    if (expected != nullptr && !expected->contains(name)) {
      throw CheckpointError(path.string() + ": holds tensor '" + name + "', which " + safetensors_index_name +
                            " does not place there");
    }
    if (packed.tensors() == nullptr) {
      add(name, {files_.size() - 1, name, entry.shape});
    } else if (name != checksums_name) {
      const PackedTensor& tensor = packed.tensors()->at(name);
      if (tensor.kind == PackedTensor::Kind::codes) continue;
      add(tensor.name, {files_.size() - 1, name, tensor.shape, tensor.kind == PackedTensor::Kind::panels});
    }
  }
  if (expected == nullptr) return;
  for (const std::string& name : *expected) {
    if (!file.entries().contains(name)) {
      throw CheckpointError(path.string() + ": tensor '" + name + "', which " + safetensors_index_name +
                            " places there, is missing");
    }
  }
}

void Checkpoint::add(const std::string& name, Place place) {
  const std::string file = files_.back()->file().path().string();
  const TensorName tensor = tensor_name(name);
  if (tensor.kind == TensorName::Kind::adapter) {
    throw CheckpointError(file + ": tensor '" + place.name + "' belongs to a PEFT adapter" + how_to_merge);
  }
  if (tensor.kind == TensorName::Kind::statistics) {
    statistics_.emplace(tensor.name, place);
    return;
  }
  const auto [known, is_new] = places_.emplace(tensor.name, place);
  if (!is_new) {
    throw CheckpointError(file + ": tensors '" + known->second.name + "' and '" + place.name + "' are both '" +
                          tensor.name + "'");
  }
  total_bytes_ += files_.back()->file().bytes(place.name).size();
}

std::map<std::string, at::Tensor> Checkpoint::statistics() const {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, place] : statistics_) tensors.emplace(name, files_[place.file]->file().tensor(place.name));
  return tensors;
}

const Checkpoint::Place* Checkpoint::find(const std::string& name) const {
  const auto found = places_.find(name);
  return found == places_.end() ? nullptr : &found->second;
}

void Checkpoint::check_shape(const Place& place, const std::string& name, at::IntArrayRef shape) const {
  const SafetensorsFile& file = files_[place.file]->file();
  const SafetensorsFile::Entry& entry = file.entry(place.name);
  if (at::IntArrayRef(place.shape) != shape) {
    throw CheckpointError(c10::str(file.path().string(), ": tensor '", name, "' has shape ",
                                   at::IntArrayRef(place.shape), ", the model needs ", shape,
                                   "; is this checkpoint from another config?"));
  }
  if (entry.dtype != at::kFloat && entry.dtype != at::kBFloat16 && entry.dtype != at::kHalf) {
    throw CheckpointError(c10::str(file.path().string(), ": tensor '", name, "' has dtype ", entry.dtype,
                                   ", expected float32, bfloat16 or float16"));
  }
}

void Checkpoint::mark_read(const Place& place) {
  if (!read_.insert(&place).second) return;
  done_bytes_ += files_[place.file]->file().bytes(place.name).size();
  if (progress_) progress_(done_bytes_, total_bytes_);
}

const Checkpoint::Place& Checkpoint::found(const std::string& name, at::IntArrayRef shape) const {
  const Place* place = find(name);
  if (place == nullptr && name == embedding_name) place = find(embedding_alias);
  if (place == nullptr) {
    throw CheckpointError(
        c10::str(folder_.string(), ": tensor '", name, "' is missing; the model needs it with shape ", shape));
  }
  check_shape(*place, place->name, shape);
  return *place;
}

at::Tensor Checkpoint::load(const std::string& name, at::IntArrayRef shape, Storage storage) {
  const Place& place = found(name, shape);
  const PackedFile& file = *files_[place.file];
  at::Tensor result;
  if (file.tensors() == nullptr) {
    result = at::empty(shape, storage.dtype);
    file.file().copy_to(place.name, result, storage.rounding);
  } else {
    const at::Tensor stored = file.view(place.name);  // which stays in the map if it is stored as it is needed
    const at::Tensor values = place.in_panels ? unpack_weight({stored, shape[0], shape[1]}) : stored;
    result = values.to(storage.rounding).to(storage.dtype);
  }
  mark_read(place);
  return result;
}

at::Tensor Checkpoint::lend(const std::string& name, at::IntArrayRef shape, Storage storage) {
  const Place& place = found(name, shape);
  const PackedFile& file = *files_[place.file];
  const at::ScalarType stored = file.file().entry(place.name).dtype;
  if (place.in_panels || stored != storage.rounding || stored != storage.dtype) return load(name, shape, storage);
  mark_read(place);
  return file.view(place.name);
}

StoredPanels Checkpoint::lend_panels(const std::string& name, at::IntArrayRef shape, Storage storage) {
  const Place& place = found(name, shape);
  if (!place.in_panels) return {};
  mark_read(place);
  const std::shared_ptr<const PackedFile>& file = files_[place.file];
  const at::Tensor stored = file->view(place.name);
  StoredPanels panels{panels_for(stored, storage.rounding)};
  // Codes of float32 are not those of float32 rounded to bfloat16 first.
  const bool keeps_values = stored.scalar_type() == at::kBFloat16 || stored.scalar_type() == storage.rounding;
  if (keeps_values) {
    panels.rounded = [file, in_file = place.name](formats::Format format) { return file->rounded(in_file, format); };
  }
  return panels;
}

void Checkpoint::pass_over(const std::string& name, at::IntArrayRef shape) {
  const Place* place = find(name);
  if (place == nullptr) return;
  check_shape(*place, name, shape);
  mark_read(*place);
}

std::vector<CheckpointSource::Stored> Checkpoint::stored() const {
  std::vector<Stored> stored;
  for (const auto& [name, place] : places_) {
    stored.push_back({name, text_of(files_[place.file]->file().entry(place.name).dtype), place.shape});
  }
  return stored;
}

void Checkpoint::finish() const {
  std::vector<std::string> extra;
  for (const auto& [name, place] : places_) {
    if (!read_.contains(&place) && name != expert_embedding_name) extra.push_back(name);
  }
  refuse_extra(folder_, "tensor", extra);
}

}  // namespace pi0::model
