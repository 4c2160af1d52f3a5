// pi0 round: the matrices of a safetensors file as number formats hold them.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/number_rounding.h"
#include "model/safetensors.h"
#include "tools/common/commands.h"
#include "tools/common/option_checks.h"
#include "tools/common/print.h"
#include "tools/model/tensor_output.h"

namespace pi0::tools {
namespace {

struct RoundOptions {
  std::vector<std::string> formats;
  std::filesystem::path input, output;
};

bool is_matrix(const model::SafetensorsFile::Entry& entry) {
  return entry.shape.size() == 2 && at::isFloatingType(entry.dtype);
}

void round_file(const RoundOptions& options) {
  if (std::set<std::string>(options.formats.begin(), options.formats.end()).size() < options.formats.size()) {
    throw CLI::ValidationError("--format", "a name stands there twice, expected each once");
  }
  check_output(options.input, options.output);
  const model::SafetensorsFile file(options.input);
  std::vector<model::SafetensorsPart> parts;
  std::size_t left_out = 0;
  for (const auto& [name, entry] : file.entries()) {
    if (!is_matrix(entry)) {
      ++left_out;
      continue;
    }
    for (const std::string& format : options.formats) {
      const auto values = [&file, matrix = name, wanted = model::parse_number_format(format)] {
        return model::round_matrix(file.tensor(matrix).to(at::kFloat), wanted);
      };
      parts.push_back({name + "." + format, at::kFloat, entry.shape, values});
    }
  }
  if (parts.empty()) {
    throw std::runtime_error(options.input.string() + ": found no matrix, expected floating tensors of two dimensions");
  }
  if (left_out > 0) {
    print(stderr, "{}: left out {} that {} not of two dimensions and floating\n", options.input.string(),
          counted(left_out, "tensor"), left_out == 1 ? "is" : "are");
  }
  write_output(options.output, parts);
  print("{}: {} of {}, each in {}\n", options.output.string(), counted(file.entries().size() - left_out, "tensor"),
        options.input.string(), counted(options.formats.size(), "format"));
}

void check_format(const std::string& name) {
  if (model::parse_number_format(name).is_static) {
    throw std::invalid_argument("format '" + name + "': there is no calibration here");
  }
}

}  // namespace

void add_round(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("round", "Round the matrices of a safetensors file to number formats, with or without scales");
  command->footer(
      "A format is ELEMENT[:GRANULARITY[:RULE]] or a preset. Rows are output channels, and groups lie in rows.\n"
      "The values after rounding are stored in float32 as TENSOR.FORMAT.\n\n"
      "Example:\n  pi0 round --format mxfp4,nvfp4,int4:group128 model.safetensors rounded.safetensors");
  const auto options = std::make_shared<RoundOptions>();
  command->add_option("--format", options->formats, "Formats, with commas between them")
      ->delimiter(',')
      ->type_name("F[,F...]")
      ->check(accepted_by(check_format))
      ->required();
  command->add_option("input", options->input, "Safetensors file")->check(CLI::ExistingFile)->required();
  command->add_option("output", options->output, "File to write")->required();
  command->callback([options] { round_file(*options); });
}

}  // namespace pi0::tools
