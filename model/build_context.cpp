#include "model/build_context.h"

namespace pi0::model {

torch::nn::Module& BuildContext::group(torch::nn::Module& parent, const std::string& path) {
  const std::string name = path.substr(0, path.find('.'));
  const auto children = parent.named_children();
  const auto* known = children.find(name);
  torch::nn::Module& child = known != nullptr ? **known : *parent.register_module(name, std::make_shared<Group>());
  return name == path ? child : group(child, path.substr(name.size() + 1));
}

at::Tensor BuildContext::parameter(torch::nn::Module& owner, const std::string& name, at::IntArrayRef shape) const {
  const std::string full = path_of(name);
  const at::Tensor loaded = weights.load(full, shape, storage_of(full, precision));
  const std::size_t dot = name.rfind('.');
  torch::nn::Module& direct_owner = dot == name.npos ? owner : group(owner, name.substr(0, dot));
  return direct_owner.register_parameter(dot == name.npos ? name : name.substr(dot + 1),
                                         loaded.is_meta() ? loaded : loaded.to(device), /*requires_grad=*/false);
}

at::Tensor BuildContext::lent(const std::string& name, at::IntArrayRef shape) const {
  const std::string full = path_of(name);
  return weights.lend(full, shape, storage_of(full, precision));
}

StoredPanels BuildContext::stored_panels(const std::string& name, at::IntArrayRef shape) const {
  const std::string full = path_of(name);
  return weights.lend_panels(full, shape, storage_of(full, precision));
}

}  // namespace pi0::model
