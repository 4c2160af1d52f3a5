#include "model/packed_file.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "model/backends/cpu/gemm.h"
#include "model/checksum.h"
#include "model/json_fields.h"
#include "model/rounding.h"

namespace pi0::model {
namespace {

constexpr const char* metadata_key = "pi0_packed";
constexpr std::string_view plain_ending = ".weight", packed_ending = ".packed_weight";
constexpr const char* what_to_do = "; write it again with pi0 convert --packed";

std::string codes_name(const std::string& panels, Format format) {
  return panels + "." + std::string(formats::name_of(format));
}

std::string renamed(const std::string& name, std::string_view ending, std::string_view new_ending) {
  return name.substr(0, name.size() - ending.size()) + std::string(new_ending);
}

[[noreturn]] void refuse(const SafetensorsFile& file, const std::string& what) {
  throw CheckpointError(file.path().string() + ": " + what + what_to_do);
}

// [Out, In] of the weights in panels, by their names in the file.
std::map<std::string, std::vector<std::int64_t>> read_shapes(const SafetensorsFile& file, const std::string& text) {
  const std::string where = file.path().string() + ": metadata " + metadata_key;
  std::map<std::string, std::vector<std::int64_t>> shapes;
  try {
    const Json json = parse_json(text, where);
    JsonFields fields(json, where);
    if (const std::int64_t layout = fields.whole("layout"); layout != panel_layout) {
      refuse(file, c10::str("its panels have layout ", layout, ", this program's have ", panel_layout));
    }
    JsonFields weights = fields.object("weights");
    for (const auto& [name, shape] : json["weights"].items()) {
      JsonFields sizes = weights.object(name);
      shapes[name] = {sizes.count("out"), sizes.count("in")};
      sizes.finish();
    }
    fields.finish();
  } catch (const JsonFileError& error) {
    throw CheckpointError(std::string(error.what()) + what_to_do);
  }
  return shapes;
}

std::vector<std::string> names_in_order(const SafetensorsFile& file) {
  std::vector<std::string> names;
  for (const auto& [name, entry] : file.entries()) names.push_back(name);
  std::ranges::sort(names, {}, [&](const std::string& name) { return file.entry(name).begin; });
  return names;
}

void mark_panels(const SafetensorsFile& file, const std::string& name, const std::vector<std::int64_t>& shape,
                 PackedTensor::Kind kind, std::map<std::string, PackedTensor>& tensors) {
  const auto found = tensors.find(name);
  if (found == tensors.end() || found->second.shape != panel_shape(shape[0], shape[1])) {
    refuse(file, c10::str("'", name, "' is no weight ", at::IntArrayRef(shape), " in panels"));
  }
  found->second.shape = shape;
  found->second.kind = kind;
}

std::map<std::string, PackedTensor> read_tensors(const SafetensorsFile& file, const std::string& metadata) {
  const auto shapes = read_shapes(file, metadata);
  std::vector<std::string> names = names_in_order(file);
  if (names.empty() || names.back() != checksums_name) refuse(file, std::string("does not end with ") + checksums_name);
  names.pop_back();
  const at::Tensor checksums = file.tensor(checksums_name);
  if (checksums.scalar_type() != at::kLong || checksums.numel() != static_cast<std::int64_t>(names.size())) {
    refuse(file, c10::str(checksums_name, " is ", checksums.sizes(), " of ", checksums.scalar_type(), ", expected [",
                          names.size(), "] of Long"));
  }
  std::map<std::string, PackedTensor> tensors;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto sum = static_cast<std::uint64_t>(checksums.const_data_ptr<std::int64_t>()[i]);
    tensors[names[i]] = {names[i], file.entry(names[i]).shape, sum};
  }
  for (const auto& [name, shape] : shapes) {
    mark_panels(file, name, shape, PackedTensor::Kind::panels, tensors);
    if (!name.ends_with(packed_ending)) refuse(file, "'" + name + "' does not end with " + std::string(packed_ending));
    tensors[name].name = renamed(name, packed_ending, plain_ending);
    for (const Format format : formats::all_formats) {
      const std::string codes = codes_name(name, format);
      if (!tensors.contains(codes)) continue;
      mark_panels(file, codes, shape, PackedTensor::Kind::codes, tensors);
      if (file.entry(codes).dtype != dtype_of(format)) refuse(file, "'" + codes + "' does not hold such codes");
    }
  }
  return tensors;
}

at::Tensor rounded_panels(const std::string& name, const at::Tensor& panels, Format format) {
  const RoundedWeight rounded = round_to_codes(best_rounding_kernels(), {panels, 0, 0}, format);
  if (!rounded.overflowed) return rounded.weight.panels;
  throw CheckpointError("'" + name + "' holds values beyond the largest of " + std::string(formats::name_of(format)) +
                        "; leave that format out, and servers round to it themselves");
}

}  // namespace

PackedFile::PackedFile(SafetensorsFile file) : file_(std::move(file)) {
  const auto metadata = file_.metadata().find(metadata_key);
  if (metadata != file_.metadata().end()) tensors_ = read_tensors(file_, metadata->second);
}

std::set<Format> PackedFile::rounded_formats() const {
  std::set<Format> found;
  if (!tensors_) return found;
  for (const auto& [name, tensor] : *tensors_) {
    if (tensor.kind == PackedTensor::Kind::codes) found.insert(*formats::find_format(name.substr(name.rfind('.') + 1)));
  }
  return found;
}

at::Tensor PackedFile::view(const std::string& name) const {
  if (tensors_ && checksum(file_.bytes(name)) != tensors_->at(name).checksum) {
    refuse(file_, "tensor '" + name + "' is damaged: its checksum is not the one that was written");
  }
  const at::Tensor lent = file_.lend(name);
  return lent.defined() ? lent : file_.tensor(name);
}

at::Tensor PackedFile::rounded(const std::string& name, Format format) const {
  const std::string codes = codes_name(name, format);
  return tensors_->contains(codes) ? view(codes) : at::Tensor{};
}

void write_packed(const WriteBytes& write, const std::vector<SafetensorsPart>& parts,
                  const std::set<std::string>& weights, const std::vector<Format>& formats) {
  Json shapes = Json::object();
  const auto sums = std::make_shared<std::vector<std::int64_t>>();
  std::vector<SafetensorsPart> panels, others;
  const auto add = [&](std::vector<SafetensorsPart>& to, SafetensorsPart part) {
    part.values = [values = std::move(part.values), sums] {
      const at::Tensor stored = values().contiguous().cpu();
      const auto* const data = static_cast<const std::byte*>(stored.const_data_ptr());
      sums->push_back(static_cast<std::int64_t>(checksum({data, stored.nbytes()})));
      return stored;
    };
    to.push_back(std::move(part));
  };
  for (const SafetensorsPart& part : parts) {
    if (!weights.contains(part.name)) {
      add(others, part);
      continue;
    }
    const std::string name = renamed(part.name, plain_ending, packed_ending);
    const std::vector<std::int64_t> shape = panel_shape(part.shape[0], part.shape[1]);
    shapes[name] = {{"out", part.shape[0]}, {"in", part.shape[1]}};
    const auto exact = [values = part.values, dtype = part.dtype] { return pack_weight(values()).panels.to(dtype); };
    add(panels, {name, part.dtype, shape, exact});
    for (const Format format : formats) {
      add(panels,
          {codes_name(name, format), dtype_of(format), shape, [=] { return rounded_panels(name, exact(), format); }});
    }
  }
  // Panels are first, so that all begin at multiples of a cache line.
  panels.insert(panels.end(), others.begin(), others.end());
  const auto count = static_cast<std::int64_t>(panels.size());
  panels.push_back({checksums_name, at::kLong, {count}, [=] { return at::tensor(*sums); }});
  const Json description = {{"layout", panel_layout}, {"weights", shapes}};
  write_safetensors(write, panels, {{metadata_key, description.dump()}}, /*alignment=*/64);
}

}  // namespace pi0::model
