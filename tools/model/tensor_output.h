// The safetensors file that a command makes of another one.
#pragma once

#include <filesystem>
#include <vector>

#include "model/safetensors.h"

namespace pi0::tools {

// Throws std::invalid_argument if the output is the input, and what check_writable() throws.
void check_output(const std::filesystem::path& input, const std::filesystem::path& output);

// The whole file or none.
void write_output(const std::filesystem::path& output, const std::vector<model::SafetensorsPart>& parts);

}  // namespace pi0::tools
