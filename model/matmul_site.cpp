#include "model/matmul_site.h"

#include <array>
#include <utility>

namespace pi0::model {

std::string_view name_of(SiteKind kind) {
  switch (kind) {
    case SiteKind::linear:
      return "linear";
    case SiteKind::attention:
      return "attention";
    case SiteKind::kv_cache:
      return "kv_cache";
    case SiteKind::vector:
      break;
  }
  return "vector";
}

std::string_view name_of(Component component) {
  switch (component) {
    case Component::vision:
      return "vision";
    case Component::language:
      return "language";
    case Component::action_expert:
      return "action_expert";
    case Component::action_head:
      return "action_head";
    case Component::unknown:
      break;
  }
  return "unknown";
}

Component component_of(std::string_view path) {
  constexpr std::array<std::pair<std::string_view, Component>, 11> rules{{
      {"action_in_proj", Component::action_head},
      {"action_out_proj", Component::action_head},
      {"action_time_mlp_in", Component::action_head},
      {"action_time_mlp_out", Component::action_head},
      {"state_proj", Component::action_head},
      {"time_mlp_in", Component::action_head},
      {"time_mlp_out", Component::action_head},
      {"gemma_expert", Component::action_expert},
      {"vision_tower", Component::vision},
      {"language_model", Component::language},
      {"paligemma", Component::language},
  }};
  for (const auto& [part, component] : rules) {
    if (path.find(part) != std::string_view::npos) return component;
  }
  return Component::unknown;
}

MatmulSite::MatmulSite(std::string site_path, SiteKind site_kind, std::int64_t in, std::int64_t out,
                       const Backend& site_backend)
    : path(std::move(site_path)),
      component(component_of(path)),
      kind(site_kind),
      in_features(in),
      out_features(out),
      backend(site_backend) {}

void MatmulSite::pretty_print(std::ostream& stream) const {
  stream << name_of(kind) << "(" << in_features << ", " << out_features << ")";
}

SiteList::SiteList(const torch::nn::Module& root) {
  // Including the root would require that a shared_ptr owns it.
  for (const auto& module : root.modules(/*include_self=*/false)) {
    auto* const site = dynamic_cast<MatmulSite*>(module.get());
    if (site == nullptr) continue;
    of_all_kinds_.emplace_back(*site);
    Sites& of_kind = site->kind == SiteKind::kv_cache ? kv_caches_ : site->kind == SiteKind::vector ? vectors_ : sites_;
    of_kind.emplace_back(*site);
  }
}

}  // namespace pi0::model
