// Runs the bare model: one observation in, one action chunk out.
#include <cstdio>

#include "load.h"

int main(int argc, char** argv) {
  const Example example = load_example(argc, argv);
  const at::Tensor actions = example.sample_actions();  // [1, action horizon, action dim] float32
  for (std::int64_t step = 0; step < actions.size(1); ++step) {
    std::printf("%3d:", static_cast<int>(step));
    for (std::int64_t i = 0; i < actions.size(2); ++i) std::printf(" %8.4f", actions[0][step][i].item<double>());
    std::printf("\n");
  }
}
