// A safetensors file whose linears' weights lie in panels (backends/cpu/gemm.h), so that the CPU's kernels read them
// from the file's map: nothing is copied, packed or rounded at start, and processes share the memory. NAME.weight
// [Out, In] is the tensor NAME.packed_weight, and rounded to a plain cast NAME.packed_weight.FORMAT. The metadata
// "pi0_packed" say the layout of panels and the weights' shapes. The last tensor holds a checksum of each other one, in
// the order of the file.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "model/safetensors.h"
#include "quant/formats/format.h"

namespace pi0::model {

inline constexpr const char* checksums_name = "pi0_packed.checksums";

struct PackedTensor {
  enum class Kind {
    plain,   // as in an ordinary file
    panels,  // a weight
    codes    // panels of a weight that is rounded
  };
  std::string name;                 // of the parameter
  std::vector<std::int64_t> shape;  // of the parameter
  std::uint64_t checksum;
  Kind kind = Kind::plain;
};

class PackedFile {
 public:
  // Takes an ordinary file, too. Throws CheckpointError for panels of another layout than this program's, and for
  // metadata that do not fit the tensors.
  explicit PackedFile(SafetensorsFile file);

  const SafetensorsFile& file() const { return file_; }

  // By their names in the file; null for an ordinary file.
  const std::map<std::string, PackedTensor>* tensors() const { return tensors_ ? &*tensors_ : nullptr; }

  // The formats that it holds its weights rounded to.
  std::set<formats::Format> rounded_formats() const;

  // A tensor's view in the map, or a copy if the file does not align it. Throws CheckpointError if its bytes are not
  // those that were written, and therefore reads all of a packed file's tensor.
  at::Tensor view(const std::string& name) const;

  // The panels `name`, rounded; undefined if the file does not hold them.
  at::Tensor rounded(const std::string& name, formats::Format format) const;

 private:
  SafetensorsFile file_;
  std::optional<std::map<std::string, PackedTensor>> tensors_;
};

// Writes `parts`, those named in `weights` [Out, In] in panels, which `formats` round as well. Throws CheckpointError
// for a weight with values beyond a format's largest.
void write_packed(const WriteBytes& write, const std::vector<SafetensorsPart>& parts,
                  const std::set<std::string>& weights, const std::vector<formats::Format>& formats);

}  // namespace pi0::model
