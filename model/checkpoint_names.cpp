#include "model/checkpoint_names.h"

#include <algorithm>
#include <array>

namespace pi0::model {
namespace {

constexpr std::array<std::string_view, 7> model_parts = {
    "paligemma_with_expert.", "action_in_proj.",      "action_out_proj.", "state_proj.", "time_mlp_",
    "action_time_mlp_in.",    "action_time_mlp_out.",
};
constexpr std::array<std::string_view, 3> statistics_parts = {"normalize_inputs.buffer_", "normalize_targets.buffer_",
                                                              "unnormalize_outputs.buffer_"};
constexpr std::array<std::string_view, 3> prefixes = {"base_model.model.", "model.", "module."};
constexpr std::string_view compiled = "_orig_mod.";  // torch.compile puts it before any part
constexpr std::array<std::string_view, 3> adapter_marks = {".lora_", ".base_layer.", ".modules_to_save."};

struct Renamed {
  std::string_view before;
  std::string_view after;
};
constexpr std::array<Renamed, 4> renamed = {{
    {"paligemma_with_expert.paligemma.language_model.lm_head.", "paligemma_with_expert.paligemma.lm_head."},
    {"paligemma_with_expert.paligemma.language_model.model.", "paligemma_with_expert.paligemma.model.language_model."},
    {"paligemma_with_expert.paligemma.vision_tower.", "paligemma_with_expert.paligemma.model.vision_tower."},
    {"paligemma_with_expert.paligemma.multi_modal_projector.",
     "paligemma_with_expert.paligemma.model.multi_modal_projector."},
}};

bool starts_with_any(std::string_view name, const auto& parts) {
  return std::ranges::any_of(parts, [&](std::string_view part) { return name.starts_with(part); });
}

std::string without_wrappers(std::string name) {
  for (std::size_t at = 0; (at = name.find(compiled, at)) != name.npos;) name.erase(at, compiled.size());
  for (bool found = true; found;) {
    found = false;
    for (const std::string_view prefix : prefixes) {
      if (!name.starts_with(prefix)) continue;
      name.erase(0, prefix.size());
      found = true;
    }
  }
  return name;
}

}  // namespace

TensorName tensor_name(std::string_view in_file) {
  using enum TensorName::Kind;
  const auto is_in_file = [&](std::string_view mark) { return in_file.find(mark) != in_file.npos; };
  if (std::ranges::any_of(adapter_marks, is_in_file)) return {adapter, std::string(in_file)};
  std::string name = without_wrappers(std::string(in_file));
  if (starts_with_any(name, statistics_parts)) return {statistics, std::move(name)};
  if (!starts_with_any(name, model_parts)) return {parameter, std::string(in_file)};
  for (const auto& [before, after] : renamed) {
    if (name.starts_with(before)) name.replace(0, before.size(), after);
  }
  return {parameter, std::move(name)};
}

}  // namespace pi0::model
