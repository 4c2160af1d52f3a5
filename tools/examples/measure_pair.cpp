// Measures one pair of formats on every linear layer, attention excluded.
#include <cstdio>

#include "load.h"
#include "quant/attach.h"
#include "quant/report.h"

int main(int argc, char** argv) {
  using namespace pi0::quant;
  const Example example = load_example(argc, argv);
  StatsBook book;
  const auto hooks = attach(example.model->sites(),
                            {one_rule({Format::float8_e4m3, Format::float16}), AttentionScope::none, {}}, &book);
  example.sample_actions();
  book.finish_request(StatsBook::Measured::yes);
  std::puts(report_table(book.snapshot()).c_str());
}
