#include "model/jax_checkpoint.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace pi0::model {
namespace {

constexpr std::uint64_t most_bytes_ahead = std::uint64_t{768} << 20;
constexpr std::uint64_t slice_bytes = std::uint64_t{32} << 20;  // of arrays without layers

// The names without what all of them begin or end with. `stored`: params.PaliGemma.img.head.bias.value
std::map<std::string, std::string> short_names(const std::map<std::string, orbax::ZarrLayout>& stored) {
  const std::string prefix = "params.", suffix = ".value";
  const bool has_prefix = std::ranges::all_of(stored, [&](const auto& a) { return a.first.starts_with(prefix); });
  const bool has_suffix = std::ranges::all_of(stored, [&](const auto& a) { return a.first.ends_with(suffix); });
  std::map<std::string, std::string> names;
  for (const auto& [name, layout] : stored) {
    std::string shorter = has_suffix ? name.substr(0, name.size() - suffix.size()) : name;
    if (has_prefix) shorter.erase(0, std::min(prefix.size(), shorter.size()));
    std::ranges::replace(shorter, '.', '/');
    names.emplace(std::move(shorter), name);
  }
  return names;
}

}  // namespace

JaxCheckpoint::JaxCheckpoint(const std::filesystem::path& params, LoadProgress progress)
    : folder_(params), progress_(std::move(progress)), store_(params), stored_names_(short_names(store_.layouts())) {
  for (const auto& [name, stored] : stored_names_) {
    arrays_.emplace(name, store_.layouts().at(stored).info);
    total_bytes_ += arrays_.at(name).bytes;
  }
  for (const auto& [name, info] : arrays_) {
    if (!name.starts_with("PaliGemma/llm/layers/") || names_.axes(name) == nullptr) continue;
    const LoraNames lora = lora_names(name);
    const bool has_a = arrays_.contains(lora.a), has_b = arrays_.contains(lora.b);
    if (has_a != has_b) {
      throw CheckpointError(folder_.string() + ": array '" + (has_a ? lora.b : lora.a) + "' is missing beside '" +
                            (has_a ? lora.a : lora.b) + "'");
    }
    if (has_a) adapted_[lora.a] = adapted_[lora.b] = name;
  }
}

bool JaxCheckpoint::has_lora() const { return !adapted_.empty(); }

const JaxAxes* JaxCheckpoint::axes_of(const std::string& array) const {
  const auto adapted = adapted_.find(array);
  return names_.axes(adapted == adapted_.end() ? array : adapted->second);
}

std::int64_t JaxCheckpoint::pieces(const std::string& array) const {
  const JaxAxes* axes = axes_of(array);
  return axes == nullptr || !axes->has_layers() ? 1 : arrays_.at(array).shape[0] * axes->parts();
}

void JaxCheckpoint::start() {
  ahead_ = std::make_unique<orbax::ReadAhead>(at::get_num_threads(), most_bytes_ahead);
  for (const auto& [name, stored] : stored_names_) {
    const JaxAxes* axes = axes_of(name);
    if (axes == nullptr) continue;  // finish() names it
    orbax::ArrayReader reader = store_.reader(stored);
    const auto rows = static_cast<std::int64_t>(std::max<std::uint64_t>(1, slice_bytes / reader.row_bytes()));
    numbers_[name] = ahead_->add(std::move(reader), axes->has_layers() ? 1 : rows);
  }
}

void JaxCheckpoint::check(const JaxPlace& place, const std::string& name, at::IntArrayRef shape) const {
  const std::string wanted = c10::str("'", name, "' of shape ", shape);
  const auto found = arrays_.find(place.array);
  if (found == arrays_.end()) {
    throw CheckpointError(folder_.string() + ": array '" + place.array +
                          "' is missing; the model needs it with shape " + place.axes->expected(shape) + " for " +
                          wanted);
  }
  const std::vector<std::int64_t>& array = found->second.shape;
  if (!place.axes->fit(array, shape)) {
    throw CheckpointError(folder_.string() + ": array '" + place.array + "' has shape " + orbax::shown(array) +
                          ", expected " + place.axes->expected(shape) + " for " + wanted +
                          "; is this checkpoint from another config?");
  }
  if (place.axes->has_layers() && place.layer >= array[0]) {
    throw CheckpointError(c10::str(folder_.string(), ": array '", place.array, "' has ", array[0],
                                   " layers, but the model needs '", name,
                                   "'; is this checkpoint from another config?"));
  }
}

// Slice `index` of an array, in its own dtype: a view that is valid until the array's next slice.
at::Tensor JaxCheckpoint::slice(const std::string& array, std::int64_t index) {
  const std::span<const std::byte> bytes = ahead_->slice(numbers_.at(array), index);
  const at::ScalarType dtype = dtype_of(arrays_.at(array).dtype);
  return at::from_blob(const_cast<std::byte*>(bytes.data()),
                       {static_cast<std::int64_t>(bytes.size() / c10::elementSize(dtype))}, dtype);
}

// An array without layers.
at::Tensor JaxCheckpoint::whole(const std::string& array, at::ScalarType dtype) {
  at::Tensor result = at::empty(arrays_.at(array).shape, dtype);
  const at::Tensor flat = result.view({-1});
  for (std::int64_t index = 0, first = 0; first < flat.numel(); ++index) {
    const at::Tensor next = slice(array, index);
    flat.narrow(0, first, next.numel()).copy_(next);
    first += next.numel();
  }
  mark_read(array, {0, 0});
  return result;
}

// A view, as above.
at::Tensor JaxCheckpoint::layer_part(const std::string& array, Piece piece, std::int64_t parts) {
  const at::IntArrayRef shape = arrays_.at(array).shape;
  const at::Tensor layer = slice(array, piece.first);
  const at::Tensor part = layer.view({parts, -1})[piece.second];
  return part.view(shape.slice(parts > 1 ? 2 : 1));
}

// The weight with what its adapters add, in float32 (openpi/models/lora.py). alpha / rank is 1 in all of openpi's
// variants, and its feed-forward layers never multiply by it.
at::Tensor JaxCheckpoint::with_lora(const JaxPlace& place, const at::Tensor& weight) {
  const LoraNames lora = lora_names(place.array);
  if (!adapted_.contains(lora.a)) return weight;
  const std::vector<std::int64_t>& shape = arrays_.at(place.array).shape;
  const std::vector<std::int64_t>&a_shape = arrays_.at(lora.a).shape, &b_shape = arrays_.at(lora.b).shape;
  const std::int64_t rank = a_shape.empty() ? 0 : a_shape.back();
  std::vector<std::int64_t> expected_a = shape, expected_b = shape;
  expected_a.back() = rank;
  expected_b[shape.size() - 2] = rank;
  if (a_shape != expected_a || b_shape != expected_b) {
    throw CheckpointError(folder_.string() + ": arrays '" + lora.a + "' and '" + lora.b + "' have shapes " +
                          orbax::shown(a_shape) + " and " + orbax::shown(b_shape) + ", which do not multiply to " +
                          orbax::shown(shape) + " of '" + place.array + "'");
  }
  const Piece piece{place.layer, place.axes->part()};
  const at::Tensor a = layer_part(lora.a, piece, place.axes->parts()).to(at::kFloat);
  at::Tensor b = layer_part(lora.b, piece, place.axes->parts()).to(at::kFloat);
  // Its einsums "BTNH,NHL->BTL" and "BTL,NLD->BTD" sum over the heads of a and of b.
  if (place.array.find("attn_vec_einsum") != std::string::npos) b = b.sum(0, /*keepdim=*/true);
  at::Tensor sum = at::matmul(a, b).add_(weight.to(at::kFloat));
  mark_read(lora.a, piece);
  mark_read(lora.b, piece);
  return sum;
}

void JaxCheckpoint::mark_read(const std::string& array, Piece piece) {
  std::set<Piece>& read = read_[array];
  if (read.insert(piece).second) {
    done_bytes_ += arrays_.at(array).bytes / static_cast<std::uint64_t>(pieces(array));
    if (progress_) progress_(done_bytes_, total_bytes_);
  }
  if (static_cast<std::int64_t>(read.size()) == pieces(array)) ahead_->release(numbers_.at(array));
}

at::Tensor JaxCheckpoint::load(const std::string& name, at::IntArrayRef shape, Storage storage) {
  const std::optional<JaxPlace> place = names_.find(name);
  if (!place) {
    throw CheckpointError(c10::str(folder_.string(), ": the model needs '", name, "' of shape ", shape,
                                   ", which openpi's JAX model does not have"));
  }
  check(*place, name, shape);
  if (!ahead_) start();
  if (!place->axes->has_layers()) {
    return place->axes->to_parameter(whole(place->array, storage.rounding), shape).to(storage.dtype);
  }
  const Piece piece{place->layer, place->axes->part()};
  const at::Tensor part = layer_part(place->array, piece, place->axes->parts());
  at::Tensor result = place->axes->to_parameter(with_lora(*place, part).to(storage.rounding), shape).to(storage.dtype);
  if (result.is_alias_of(part)) result = result.clone();
  mark_read(place->array, piece);
  return result;
}

std::vector<CheckpointSource::Stored> JaxCheckpoint::stored() const {
  std::vector<Stored> stored;
  for (const auto& [name, array] : arrays_) stored.push_back({name, orbax::name_of(array.dtype), array.shape});
  return stored;
}

void JaxCheckpoint::finish() const {
  std::vector<std::string> extra;
  for (const auto& [name, info] : arrays_) {
    const auto read = read_.find(name);
    if (read == read_.end()) {
      extra.push_back(name);
    } else if (static_cast<std::int64_t>(read->second.size()) < pieces(name)) {
      throw CheckpointError(c10::str(folder_.string(), ": array '", name, "' of shape ", orbax::shown(info.shape),
                                     " has layers that the model does not have: it asked for ",
                                     read->second.rbegin()->first + 1, "; is this checkpoint from another config?"));
    }
  }
  refuse_extra(folder_, "array", extra);
}

}  // namespace pi0::model
