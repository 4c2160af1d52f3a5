#include "tools/common/load_policy.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <malloc.h>

#include <limits>
#include <random>
#include <stdexcept>

#include "model/backends/cpu/cpu_backend.h"
#include "model/checkpoint.h"
#include "tools/common/print.h"
#include "tools/common/progress.h"
#include "tools/common/usable_cpus.h"

namespace pi0::tools {
namespace {

// While a model is loaded, a tensor's memory goes back to the system when it is freed. glibc raises the threshold when
// it frees large blocks, and would keep a tenth of the model's size in holes.
void return_freed_memory() { ::mallopt(M_MMAP_THRESHOLD, 1 << 20); }

// A request allocates and frees hundreds of tensors. Their memory stays with the process; otherwise the system would
// clear every page again, which takes a fifth of a request's time. What small blocks left while the model was loaded is
// given back first.
void keep_freed_memory() {
  ::malloc_trim(0);
  ::mallopt(M_ARENA_MAX, 1);  // large blocks of other arenas would be mapped all the same
  ::mallopt(M_MMAP_MAX, 0);
  ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

model::Execution chosen_execution(const ModelOptions& options) {
  model::Execution execution{.device = chosen_device(options.device)};
  if (options.instructions && !execution.device.is_cpu()) {
    throw std::invalid_argument("--instructions chooses a CPU's kernels, but the model runs on " +
                                execution.device.str());
  }
  if (options.kernels == Kernels::reference) return execution;
  if (execution.device.is_cpu()) {
    execution.backend =
        model::cpu_backend(options.instructions ? *options.instructions : model::fastest_instruction_set());
  } else {
    execution.backend = model::cuda_backend(execution.device.index());
    execution.recorder = model::device_recorder(execution.device);
  }
  return execution;
}

std::uint64_t bytes_of(at::IntArrayRef shape, model::Storage storage) {
  return static_cast<std::uint64_t>(c10::multiply_integers(shape)) * at::elementSize(storage.dtype);
}

// How much memory a model's parameters take.
class ByteCount : public model::ShapeRecorder {
 public:
  at::Tensor load(const std::string& name, at::IntArrayRef shape, model::Storage storage) override {
    bytes_ += bytes_of(shape, storage);
    return ShapeRecorder::load(name, shape, storage);
  }
  std::uint64_t bytes() const { return bytes_; }

 private:
  std::uint64_t bytes_ = 0;
};

class ShownRandomWeights : public model::RandomWeights {
 public:
  ShownRandomWeights(std::uint64_t seed, std::uint64_t total) : RandomWeights(seed), total_(total) {}
  at::Tensor load(const std::string& name, at::IntArrayRef shape, model::Storage storage) override {
    at::Tensor drawn = RandomWeights::load(name, shape, storage);
    progress_.update(done_ += bytes_of(shape, storage), total_);
    return drawn;
  }

 private:
  std::uint64_t done_ = 0, total_;
  Progress progress_{"drawing random weights", Progress::Unit::bytes};
};

// Chosen threads; without a choice, run_program() has set their number.
void use_threads(int threads, const std::function<void(const std::string&)>& warn) {
  if (threads == 0) return;
  at::set_num_threads(threads);
  const int cpus = usable_cpus();
  if (threads <= cpus) return;
  warn(fmt::format("--threads {}: this process may use {}; more threads wait for each other, and requests take longer",
                   threads, counted(static_cast<std::size_t>(cpus), "CPU")));
}

}  // namespace

at::Device chosen_device(const std::string& name) {
  const auto gpu_count = at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0;
  if (name == "auto") return gpu_count > 0 ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  if (name == "cpu") return at::kCPU;
  const std::string prefix = "cuda:";
  const std::string digits = name.starts_with(prefix) ? name.substr(prefix.size()) : "0";
  const bool is_index =
      !digits.empty() && digits.size() < 4 && digits.find_first_not_of("0123456789") == std::string::npos;
  if ((name != "cuda" && !name.starts_with(prefix)) || !is_index) {
    throw std::invalid_argument("device '" + name + "' is unknown; expected auto, cpu, cuda or cuda:N");
  }
  const int index = std::stoi(digits);
  if (index >= gpu_count) {
    throw std::invalid_argument(fmt::format("device '{}' does not exist: libtorch finds {}", name,
                                            counted(static_cast<std::size_t>(gpu_count), "GPU")));
  }
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
}

std::shared_ptr<model::Pi0> load_model(const ModelOptions& options, const model::ModelConfig& config,
                                       const std::function<void(const std::string&)>& warn) {
  require_checkpoint(options);
  use_threads(options.threads, warn);
  return_freed_memory();
  const model::Execution execution = chosen_execution(options);
  std::shared_ptr<model::Pi0> model;
  if (options.random_weights) {
    ByteCount count;
    const model::Pi0 shapes(config, count, options.precision, {});
    ShownRandomWeights weights(options.seed.value_or(0), count.bytes());
    model = std::make_shared<model::Pi0>(config, weights, options.precision, execution);
  } else {
    const model::CheckpointFolder folder = model::find_checkpoint(options.checkpoint_dir);
    Progress progress("loading " + folder.weights.string(), Progress::Unit::bytes);
    const auto checkpoint =
        model::open_checkpoint(folder, [&](std::uint64_t done, std::uint64_t total) { progress.update(done, total); });
    model = std::make_shared<model::Pi0>(config, *checkpoint, options.precision, execution);
    checkpoint->finish();
  }
  // On a GPU, the CPU's share of the work is too small for several threads.
  if (options.threads == 0 && !execution.device.is_cpu()) at::set_num_threads(1);
  keep_freed_memory();
  return model;
}

LoadedPolicy load_policy(PolicyParts parts, const ModelOptions& options, std::function<void(const std::string&)> warn) {
  ModelOptions seeded = options;
  if (!seeded.seed) seeded.seed = std::random_device{}();
  for (const std::string& warning : parts.warnings) warn(warning);
  const std::shared_ptr<model::Pi0> model = load_model(seeded, parts.sizes, warn);
  const int threads = at::get_num_threads();
  const auto sample = [model, threads](const model::ModelInputs& inputs, const at::Tensor& noise, std::int64_t steps,
                                       model::MaskedInputs masked) {
    at::set_num_threads(threads);  // OpenMP counts threads per calling thread
    return model->sample_actions(inputs, noise, steps, {.masked = masked});
  };
  auto policy = std::make_unique<policy::Policy>(
      std::move(parts.config), parts.norm_stats, std::move(parts.tokenizer),
      std::bind(sample, std::placeholders::_1, std::placeholders::_2, std::placeholders::_3, options.masked),
      policy::PolicyOptions{options.default_prompt, step_count(options, parts.sizes), *seeded.seed, std::move(warn),
                            options.masked, options.limits, options.allow_image_wrap});
  return {model, std::move(policy), sample, *seeded.seed};
}

}  // namespace pi0::tools
