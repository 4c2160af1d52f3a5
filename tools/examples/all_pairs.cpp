// All 25 pairs of formats on one loaded model; the statistics of each as JSON, a line per pair.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "load.h"
#include "quant/attach.h"
#include "quant/report.h"

int main(int argc, char** argv) {
  using namespace pi0::quant;
  const Example example = load_example(argc, argv);
  for (const Format input : all_formats) {
    for (const Format output : all_formats) {
      StatsBook book;
      const auto hooks = attach(example.model->sites(), {one_rule({input, output}), AttentionScope::all, {}}, &book);
      example.sample_actions();
      book.finish_request(StatsBook::Measured::yes);
      const auto report = nlohmann::json::parse(
          report_json(book.snapshot(), {{"input_fmt", name_of(input)}, {"output_fmt", name_of(output)}}));
      std::printf("%s\n", report["components"].dump().c_str());
    }
  }
}
