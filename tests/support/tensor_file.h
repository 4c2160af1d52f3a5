// Tensors as a safetensors file.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "model/safetensors.h"

namespace pi0::test {

inline void write_tensors(const std::filesystem::path& path, const std::map<std::string, at::Tensor>& tensors,
                          const std::map<std::string, std::string>& metadata = {}) {
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  model::write_safetensors(
      [&](const void* data, std::size_t size) {
        stream.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
      },
      tensors, metadata);
}

}  // namespace pi0::test
