// What a module needs while it is built: the source of its parameters and its path, which is its name in the
// checkpoint. Each name is written once, where the child or parameter is registered.
#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <string>
#include <utility>

#include "model/execution.h"
#include "model/weight_source.h"

namespace pi0::model {

// Groups modules under the name that the checkpoint gives them.
struct Group : torch::nn::Module {};

struct BuildContext {
  WeightSource& weights;
  Precision precision;
  at::Device device;
  const Backend& backend;
  std::string path = {};  // of the module being built; empty for the model

  std::string path_of(const std::string& name) const { return path.empty() ? name : path + "." + name; }

  // Builds a child module and registers it under `name`. Dots separate groups, which are created if missing. The parent
  // owns the child.
  template <class Child, class... Arguments>
  Child& add(torch::nn::Module& parent, const std::string& name, Arguments&&... arguments) const {
    BuildContext context = *this;
    context.path = path_of(name);
    const std::size_t dot = name.rfind('.');
    torch::nn::Module& owner = dot == name.npos ? parent : group(parent, name.substr(0, dot));
    return *owner.register_module(dot == name.npos ? name : name.substr(dot + 1),
                                  std::make_shared<Child>(context, std::forward<Arguments>(arguments)...));
  }

  // Loads a parameter of that shape and registers it under `name`, which may name groups too. Throws CheckpointError.
  at::Tensor parameter(torch::nn::Module& owner, const std::string& name, at::IntArrayRef shape) const;

  // The same for a caller that copies the parameter at once: it is not registered, stays on the CPU, and may be a view
  // of the checkpoint file.
  at::Tensor lent(const std::string& name, at::IntArrayRef shape) const;

  // The parameter in panels, if it is stored so.
  StoredPanels stored_panels(const std::string& name, at::IntArrayRef shape) const;

  // The dtype that the parameter has in memory, where it is not in panels.
  at::ScalarType dtype(const std::string& name) const { return storage_of(path_of(name), precision).dtype; }

 private:
  static torch::nn::Module& group(torch::nn::Module& parent, const std::string& path);
};

}  // namespace pi0::model
