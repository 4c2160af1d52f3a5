// Serves a policy with quantized layers to openpi's clients: serve_quantized CONFIG CHECKPOINT. Ends with Ctrl-C, and
// then prints the statistics of the requests that it answered.
#include <cstdio>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <utility>

#include "model/checkpoint.h"
#include "model/pi0.h"
#include "model/policy/policy.h"
#include "quant/attach.h"
#include "quant/report.h"
#include "server/server.h"

namespace {

using namespace pi0;

struct LoadedPolicy {
  std::shared_ptr<model::Pi0> model;
  std::unique_ptr<policy::Policy> policy;
};

LoadedPolicy load_policy(const char* name, const std::filesystem::path& folder) {
  policy::PolicyConfig config = policy::policy_config(name);
  const std::filesystem::path architecture = folder / "architecture.json";  // checkpoints of full size have none
  const model::ModelConfig sizes =
      std::filesystem::exists(architecture) ? model::read_architecture(architecture) : policy::model_config(config);
  model::Checkpoint weights(folder);
  const auto model = std::make_shared<model::Pi0>(sizes, weights, model::Precision::bfloat16, model::Execution{});
  weights.finish();
  const auto sample = [model](const model::ModelInputs& inputs, const at::Tensor& noise, std::int64_t steps) {
    return model->sample_actions(inputs, noise, steps);
  };
  policy::NormStats statistics = policy::read_norm_stats(policy::norm_stats_file(folder, config.asset_id));
  policy::PromptTokenizer tokenizer =
      policy::PromptTokenizer::from_file(policy::find_tokenizer(folder), sizes.vocab_size);
  policy::PolicyOptions options;
  options.seed = 0;  // of the noise
  return {model, std::make_unique<policy::Policy>(std::move(config), std::move(statistics), std::move(tokenizer),
                                                  sample, options)};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) throw std::invalid_argument("expected two arguments, a policy's name and the folder of a checkpoint");
  const LoadedPolicy loaded = load_policy(argv[1], argv[2]);
  quant::StatsBook book;
  const auto hooks = quant::attach(
      loaded.model->sites(),
      {quant::one_rule({quant::Format::float8_e4m3, quant::Format::float16}), quant::AttentionScope::all, {}}, &book);
  server::ServerOptions options;
  options.host = "127.0.0.1";
  options.port = 0;  // a free one
  server::Server server(options, loaded.policy->metadata(), [&](const protocol::Dict& request) {
    protocol::Dict answer = loaded.policy->infer(request);
    book.finish_request(quant::StatsBook::Measured::yes);
    return answer;
  });
  std::printf("serving on port %d\n", server.port());
  std::fflush(stdout);
  server.run();
  std::puts(quant::report_table(book.snapshot()).c_str());
}
