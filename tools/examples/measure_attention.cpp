// Measures attention too. When the attachment is destroyed, the model is as before.
#include <cstdio>

#include "load.h"
#include "quant/attach.h"
#include "quant/report.h"

int main(int argc, char** argv) {
  using namespace pi0::quant;
  const Example example = load_example(argc, argv);
  const at::Tensor before = example.sample_actions();
  StatsBook book;
  {
    const auto hooks = attach(example.model->sites(),
                              {one_rule({Format::float8_e4m3, Format::float16}), AttentionScope::all, {}}, &book);
    example.sample_actions();
    book.finish_request(StatsBook::Measured::yes);
  }
  for (const ComponentRow& row : component_rows(book.snapshot(), "attention")) {
    std::printf("%-14s %lld layers, mean RMSE %.3e\n", row.component.c_str(), static_cast<long long>(row.n_layers),
                row.mean_rmse.value_or(0));
  }
  return at::equal(example.sample_actions(), before) ? 0 : 1;
}
