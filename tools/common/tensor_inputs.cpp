#include "tools/common/tensor_inputs.h"

#include <stdexcept>
#include <utility>

#include "model/safetensors.h"
#include "protocol/files.h"

namespace pi0::tools {

TensorInputs read_tensor_inputs(const std::filesystem::path& path) {
  const model::SafetensorsFile file(path);
  model::ModelInputs inputs;
  const at::Tensor images = file.tensor("images"), masks = file.tensor("image_masks");
  if (images.dim() != 5 || images.scalar_type() != at::kByte || masks.dim() != 2 || masks.size(0) != images.size(0)) {
    throw std::invalid_argument(c10::str(path.string(), ": found images ", images.scalar_type(), " ", images.sizes(),
                                         " and image_masks ", masks.sizes(),
                                         ", expected uint8 [cameras, B, 224, 224, 3] and [cameras, B]"));
  }
  for (std::int64_t camera = 0; camera < images.size(0); ++camera) {
    inputs.images.push_back(model::image_to_input(images[camera]));
    inputs.image_masks.push_back(masks[camera]);
  }
  inputs.tokens = file.tensor("tokens");
  inputs.token_mask = file.tensor("token_mask");
  inputs.state = file.tensor("state");
  return {std::move(inputs), file.tensor("noise")};
}

void write_tensors(const std::filesystem::path& file, const std::map<std::string, at::Tensor>& tensors) {
  protocol::WholeFile whole(file);
  model::write_safetensors([&](const void* data, std::size_t size) { whole.write(data, size); }, tensors);
  whole.keep();
}

}  // namespace pi0::tools
