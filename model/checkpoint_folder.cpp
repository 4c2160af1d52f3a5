#include "model/checkpoint_folder.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "model/jax_checkpoint.h"

namespace pi0::model {
namespace {

namespace fs = std::filesystem;

bool holds_safetensors(const fs::path& folder) {
  return fs::exists(folder / safetensors_name) || fs::exists(folder / safetensors_index_name);
}

bool holds_arrays(const fs::path& folder) {
  if (fs::exists(folder / "manifest.ocdbt") || fs::exists(folder / "_METADATA")) return true;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    if (fs::exists(entry.path() / ".zarray") || fs::exists(entry.path() / "zarr.json")) return true;
  }
  return false;
}

// The optimizer's state lies beside params/ in openpi's folders and has the same form.
bool is_train_state(const fs::path& folder) { return folder.filename() == "train_state"; }

bool is_checkpoint(const fs::path& folder) {
  return holds_safetensors(folder) || (fs::is_directory(folder / "params") && holds_arrays(folder / "params"));
}

// Folders of `folder` whose names are numbers and that hold a checkpoint, in the order of the numbers. LeRobot's are
// checkpoints/<step>/pretrained_model.
std::vector<fs::path> step_folders(const fs::path& folder) {
  std::vector<fs::path> steps;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.empty() || name.size() > 18 || !std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; })) {
      continue;
    }
    if (is_checkpoint(entry.path()) || holds_safetensors(entry.path() / "pretrained_model")) {
      steps.push_back(entry.path());
    }
  }
  std::ranges::sort(steps, {}, [](const fs::path& step) { return std::stoll(step.filename().string()); });
  return steps;
}

[[noreturn]] void refuse_address(const std::string& place) {
  const std::string refusal = place + ": is an address, expected a folder" +
                              (place.starts_with("gs:") ? " or an address in openpi's download cache" : "") +
                              "; download it with '";
  const std::string then = "' and give that folder";
  if (place.starts_with("s3:")) throw CheckpointError(refusal + "aws s3 cp --recursive " + place + " DIR" + then);
  if (place.starts_with("gs:")) throw CheckpointError(refusal + "gsutil -m cp -r " + place + " DIR" + then);
  std::string name = place;
  for (const std::string hub : {"hf://", "https://huggingface.co/"}) {
    if (name.starts_with(hub)) name = name.substr(hub.size());
  }
  throw CheckpointError(refusal + "hf download " + name + " --local-dir DIR" + then);
}

bool is_letter_or_digit(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

// As "lerobot/pi0_base".
bool is_hub_name(std::string_view text) {
  const auto is_part = [](std::string_view part) {
    return !part.empty() && is_letter_or_digit(part.front()) &&
           std::ranges::all_of(part, [](char c) { return is_letter_or_digit(c) || c == '.' || c == '_' || c == '-'; });
  };
  const std::size_t slash = text.find('/');
  return slash != std::string_view::npos && is_part(text.substr(0, slash)) && is_part(text.substr(slash + 1));
}

[[noreturn]] void refuse_absent(const fs::path& place) {
  const std::string text = place.string();
  if (is_hub_name(text)) {
    throw CheckpointError(text +
                          ": there is no such folder; if it is a name on Hugging Face, download it with 'hf download " +
                          text + " --local-dir DIR' and give that folder");
  }
  throw CheckpointError(text + ": there is no such folder");
}

[[noreturn]] void refuse_folder(const fs::path& folder) {
  const std::string name = folder.string();
  if (is_train_state(folder)) {
    throw CheckpointError(name + ": is the optimizer's state of a training; give " + folder.parent_path().string());
  }
  if (const std::vector<fs::path> steps = step_folders(folder); !steps.empty()) {
    std::string list;
    for (const fs::path& step : steps) list += (list.empty() ? "" : ", ") + step.filename().string();
    throw CheckpointError(name + ": holds the checkpoints of several training steps: " + list +
                          "; give one of them, for example " + steps.back().string());
  }
  if (fs::exists(folder / "adapter_model.safetensors") || fs::exists(folder / "adapter_config.json")) {
    throw CheckpointError(name +
                          ": holds PEFT adapters without the model; merge them into it (merge_and_unload), save "
                          "the model, and give that folder");
  }
  if (fs::exists(folder / "pytorch_model.bin")) {
    throw CheckpointError((folder / "pytorch_model.bin").string() +
                          ": pickled checkpoints can run code and are not read; save the model with safetensors as " +
                          safetensors_name);
  }
  if (folder.filename() == "assets" || fs::exists(folder / "norm_stats.json")) {
    throw CheckpointError(name + ": holds a checkpoint's statistics, not its weights; give the folder above assets/");
  }
  throw CheckpointError(name + ": holds neither " + safetensors_name + " nor " + safetensors_index_name +
                        " (PyTorch) nor params/ (JAX)");
}

bool is_lerobot(const Json& config) { return config.contains("type"); }

CheckpointFolder safetensors_folder(const fs::path& folder) {
  Json config;
  if (const fs::path file = folder / "config.json"; fs::exists(file)) {
    try {
      config = read_json(file);
    } catch (const JsonFileError& error) {
      throw CheckpointError(error.what());
    }
    if (!config.is_object()) {
      throw CheckpointError(file.string() + ": is " + shown(config) + ", expected an object");
    }
  }
  return {is_lerobot(config) ? Layout::lerobot : Layout::openpi, folder, folder, std::move(config)};
}

}  // namespace

std::unique_ptr<CheckpointSource> open_checkpoint(const CheckpointFolder& folder, LoadProgress progress) {
  if (folder.layout == Layout::jax) return std::make_unique<JaxCheckpoint>(folder.weights, std::move(progress));
  return std::make_unique<Checkpoint>(folder.weights, std::move(progress));
}

std::string name_of(Layout layout) {
  switch (layout) {
    case Layout::openpi:
      return "openpi PyTorch";
    case Layout::jax:
      return "openpi JAX";
    case Layout::lerobot:
      return "LeRobot";
  }
  throw std::logic_error("unknown layout");
}

CheckpointFolder find_checkpoint(const fs::path& given) {
  // `folder/` and `folder` are the same place, with the same parent.
  const fs::path place = given.has_filename() ? given : given.parent_path();
  if (!fs::exists(place)) {
    if (given.string().find(":/") != std::string::npos) refuse_address(given.string());
    refuse_absent(place);
  }
  if (!fs::is_directory(place)) {
    if (place.filename() == safetensors_name || place.filename() == safetensors_index_name) {
      return safetensors_folder(place.has_parent_path() ? place.parent_path() : ".");
    }
    throw CheckpointError(place.string() + ": is a file; expected a checkpoint's folder");
  }
  if (holds_safetensors(place)) return safetensors_folder(place);
  if (holds_safetensors(place / "pretrained_model")) return safetensors_folder(place / "pretrained_model");
  if (is_checkpoint(place)) return {Layout::jax, place, place / "params", {}};
  if (holds_arrays(place) && !is_train_state(place)) {
    // A link stands for its target, which has ../assets beside it.
    const fs::path beside = fs::weakly_canonical(place).parent_path();
    return {Layout::jax, fs::exists(place / "assets") ? place : beside, place, {}};
  }
  refuse_folder(place);
}

StoredSizes stored_sizes(const CheckpointSource& checkpoint) {
  StoredSizes sizes;
  for (const CheckpointSource::Stored& stored : checkpoint.stored()) {
    // JAX's kernels are [In, Out], PyTorch's weights [Out, In].
    if (stored.name.starts_with("action_time_mlp_in")) sizes.pi05 = false;
    if (stored.name.starts_with("time_mlp_in")) sizes.pi05 = true;
    if (stored.shape.size() != 2) continue;
    if (stored.name == "action_in_proj.weight") sizes.action_dim = stored.shape[1];
    if (stored.name == "action_in_proj/kernel") sizes.action_dim = stored.shape[0];
    const bool is_embedding = stored.name == embedding_name || stored.name == embedding_alias ||
                              stored.name == "PaliGemma/llm/embedder/input_embedding";
    if (!is_embedding) continue;
    sizes.vocab_size = stored.shape[0];
    sizes.paligemma_width = stored.shape[1];
  }
  return sizes;
}

}  // namespace pi0::model
