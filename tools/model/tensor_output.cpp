#include "tools/model/tensor_output.h"

#include <stdexcept>
#include <system_error>

#include "protocol/files.h"

namespace pi0::tools {

void check_output(const std::filesystem::path& input, const std::filesystem::path& output) {
  protocol::check_writable(output);
  std::error_code unknown;
  if (std::filesystem::equivalent(input, output, unknown)) {
    throw std::invalid_argument(output.string() + ": is the input, which would be lost");
  }
}

void write_output(const std::filesystem::path& output, const std::vector<model::SafetensorsPart>& parts) {
  protocol::WholeFile whole(output);
  model::write_safetensors([&](const void* data, std::size_t size) { whole.write(data, size); }, parts);
  whole.keep();
}

}  // namespace pi0::tools
