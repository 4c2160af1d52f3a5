// Writes arrays as orbax does, so that it can restore them: zarr 2, one zstd frame per array, in OCDBT or a folder per
// array. Holds no array in memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/orbax/zarr.h"
#include "model/write_bytes.h"

namespace pi0::orbax {

enum class Form { ocdbt, folders };

struct WrittenArray {
  std::string name;  // params.PaliGemma.img.head.bias.value: a path in orbax's tree, whose parts have no dots
  DType dtype;
  std::vector<std::int64_t> shape;                         // at least one axis
  std::function<void(const model::WriteBytes&)> elements;  // in C order, in as many pieces as it likes
};

// Makes the file of that path, relative to the folder being written, with what `content` writes.
using WriteFile =
    std::function<void(const std::string& path, const std::function<void(const model::WriteBytes&)>& content)>;

// Calls `write` for each file, for one after another; the manifest and _METADATA come last. `threads` compress. Throws
// what `write` and `elements` throw, and std::logic_error when elements are too few or too many.
void write_arrays(const WriteFile& write, std::vector<WrittenArray> arrays, Form form, int threads);

}  // namespace pi0::orbax
