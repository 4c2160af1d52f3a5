// Quantizes everything but the vision tower, without statistics, and compares the actions.
#include <cstdio>

#include "load.h"
#include "quant/attach.h"

int main(int argc, char** argv) {
  using namespace pi0::quant;
  const Example example = load_example(argc, argv);
  const at::Tensor exact = example.sample_actions();
  const PlanRequest plan{
      one_rule({Format::float8_e4m3, Format::float32}), AttentionScope::all, {pi0::model::Component::vision}};
  const auto hooks = attach(example.model->sites(), plan, nullptr);
  const at::Tensor rounded = example.sample_actions();
  std::printf("action RMSE %.4f\n", (rounded - exact).square().mean().sqrt().item<double>());
}
