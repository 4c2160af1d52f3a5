// pi0 infer: one request without a socket, as a whole policy (msgpack in, msgpack out) or on the bare
// model (tensors in, tensors out).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <stdexcept>

#include "model/safetensors.h"
#include "protocol/files.h"
#include "protocol/openpi_messages.h"
#include "tools/common/commands.h"
#include "tools/common/load_policy.h"
#include "tools/common/model_options.h"
#include "tools/common/policy_parts.h"
#include "tools/common/print.h"
#include "tools/common/quant_session.h"
#include "tools/common/tensor_inputs.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

struct InferOptions {
  ModelOptions model;
  QuantOptions quant;
  fs::path request;
  fs::path noise;
  fs::path inputs;
  fs::path trace;
  fs::path output;
};

void warn(const std::string& line) { print(stderr, "{}\n", line); }

// Runs `work` on the model with the hooks that were asked for, and writes their statistics.
template <class Work>
auto with_hooks(const InferOptions& options, const quant::PlanRequest& plan, model::Pi0& model,
                const std::string& config, std::int64_t num_steps, Work&& work) {
  if (!options.quant.asked()) return work();
  QuantSession session(model, options.quant, plan,
                       report_meta(config, model.device(), options.model.precision, num_steps), warn);
  auto answer = session.count(work);
  print("{}", session.table());
  if (const std::string written = session.write(); !written.empty()) warn(written);
  return answer;
}

// The file's `noise`, [A, N] or [1, A, N] float32, as a request's field.
protocol::NdArray read_noise(const fs::path& path) {
  at::Tensor noise = model::SafetensorsFile(path).tensor("noise");
  if (noise.dim() == 3 && noise.size(0) == 1) noise = noise[0];
  if (noise.dim() != 2 || noise.scalar_type() != at::kFloat) {
    throw std::invalid_argument(c10::str(path.string(), ": 'noise' is ", noise.scalar_type(), " ", noise.sizes(),
                                         ", expected float32 [action_horizon, action_dim]"));
  }
  return policy::noise_field(noise);
}

void infer_request(const InferOptions& options) {
  protocol::Dict request = protocol::read_message(options.request);
  if (!options.noise.empty()) request.set(std::string(protocol::noise_key), read_noise(options.noise));
  PolicyParts parts = load_parts(options.model);
  // Errors in the formats should show before loading.
  check_split_errors(options.quant);
  const quant::PlanRequest plan = plan_request(options.quant);
  const std::string config = parts.config.name;
  const std::int64_t steps = step_count(options.model, parts.sizes);
  const LoadedPolicy loaded = load_policy(std::move(parts), options.model, warn);
  const protocol::Dict answer =
      with_hooks(options, plan, *loaded.model, config, steps, [&] { return loaded.policy->infer(request); });
  protocol::write_message(options.output, protocol::without_timing(answer));
}

void infer_tensors(const InferOptions& options) {
  const TensorInputs given = read_tensor_inputs(options.inputs);
  const model::ModelConfig sizes = chosen_sizes(options.model);
  check_split_errors(options.quant);
  const quant::PlanRequest plan = plan_request(options.quant);
  const std::int64_t steps = step_count(options.model, sizes);
  const auto model = load_model(options.model, sizes, warn);
  model::Trace trace;
  const at::Tensor actions = with_hooks(options, plan, *model, options.model.config, steps, [&] {
                               return model->sample_actions(
                                   given.inputs, given.noise, steps,
                                   {.masked = options.trace.empty() ? options.model.masked : model::MaskedInputs::keep,
                                    .trace = options.trace.empty() ? nullptr : &trace});
                             }).cpu();
  write_tensors(options.output, {{"actions", actions}});
  if (options.trace.empty()) return;
  trace.emplace("actions", actions);
  write_tensors(options.trace, trace);
}

}  // namespace

void add_infer(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("infer", "Answer one request without a server: a whole policy, or the bare model on tensors");
  command->footer(
      "Example:\n"
      "  pi0 infer --config pi05_droid --checkpoint-dir DIR --request policy_records/000000.request.msgpack --output "
      "ANSWER");
  const auto options = std::make_shared<InferOptions>();
  add_place_options(*command, options->model);
  add_model_options(*command, options->model);
  CLI::Option* request = command->add_option("--request", options->request, "Request as msgpack, for a whole policy")
                             ->check(CLI::ExistingFile);
  command->add_option("--noise", options->noise, "Safetensors with `noise`, float32 [action_horizon, action_dim]")
      ->check(CLI::ExistingFile)
      ->needs(request);
  add_quant_options(*command, options->quant);  // after --noise, see add_noise_option()
  CLI::Option* inputs =
      command
          ->add_option("--inputs", options->inputs,
                       "Safetensors with images, image_masks, state, tokens, token_mask and noise, for "
                       "the bare model")
          ->check(CLI::ExistingFile)
          ->excludes(request);
  command->add_option("--trace", options->trace, "Also write the tensors between the model's stages")->needs(inputs);
  command->add_option("--output", options->output, "Answer as msgpack without timings, or safetensors with `actions`")
      ->required();
  command->callback([options] {
    protocol::check_writable(options->output);
    if (!options->request.empty()) return infer_request(*options);
    if (!options->inputs.empty()) return infer_tensors(*options);
    throw CLI::RequiredError("--request or --inputs");
  });
}

}  // namespace pi0::tools
