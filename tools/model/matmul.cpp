// pi0 matmul: the products of a safetensors file's matrices as accumulators sum them.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/backends/cpu/fast_ordered_linear.h"
#include "model/ordered_linear.h"
#include "model/safetensors.h"
#include "tools/common/commands.h"
#include "tools/common/model_options.h"
#include "tools/common/option_checks.h"
#include "tools/common/print.h"
#include "tools/common/stopwatch.h"
#include "tools/model/tensor_output.h"

namespace pi0::tools {
namespace {

using at::Tensor;

struct MatmulOptions {
  std::vector<std::string> accumulators;
  Kernels kernels = Kernels::fast;
  std::optional<model::InstructionSet> instructions;
  std::filesystem::path input, output;
};

// One case of a file.
struct Operands {
  std::string x, weight, bias;        // names of tensors; bias empty: none
  std::vector<std::int64_t> product;  // [rows, Out]
};

struct Work {
  double products = 0, seconds = 0;  // packing included
};

[[noreturn]] void refuse_tensor(const model::SafetensorsFile& file, const std::string& name,
                                const std::string& expected) {
  const auto& entry = file.entry(name);
  throw std::runtime_error(fmt::format("{}: tensor '{}' is {} [{}], expected {}", file.path().string(), name,
                                       toString(entry.dtype), fmt::join(entry.shape, ", "), expected));
}

// Throws std::runtime_error unless the tensor has as many dimensions, and floating values.
const std::vector<std::int64_t>& shape_of(const model::SafetensorsFile& file, const std::string& name,
                                          std::size_t dimensions) {
  const auto& entry = file.entry(name);
  if (entry.shape.size() != dimensions || !at::isFloatingType(entry.dtype)) {
    refuse_tensor(file, name, dimensions == 2 ? "a floating matrix" : "a floating vector");
  }
  return entry.shape;
}

bool is_operand(const std::string& name) {
  return name.starts_with("x.") || name.starts_with("w.") || name.starts_with("b.");
}

std::vector<Operands> find_operands(const model::SafetensorsFile& file) {
  const auto has = [&](const std::string& name) { return file.entries().contains(name); };
  std::vector<Operands> found;
  for (const auto& [name, entry] : file.entries()) {
    if (!is_operand(name)) continue;
    const std::string of_case = name.substr(1);
    for (const std::string& partner : {"x" + of_case, "w" + of_case}) {
      if (has(partner)) continue;
      throw std::runtime_error(
          fmt::format("{}: found '{}' without '{}', expected both", file.path().string(), name, partner));
    }
    if (name[0] != 'x') continue;
    Operands operands{name, "w" + of_case, has("b" + of_case) ? "b" + of_case : "", {}};
    const auto &x = shape_of(file, name, 2), &weight = shape_of(file, operands.weight, 2);
    if (x[1] != weight[1]) refuse_tensor(file, operands.weight, fmt::format("[Out, {}] as in '{}'", x[1], name));
    if (!operands.bias.empty() && shape_of(file, operands.bias, 1)[0] != weight[0]) {
      refuse_tensor(file, operands.bias, fmt::format("[{}] as in '{}'", weight[0], operands.weight));
    }
    operands.product = {x[0], weight[0]};
    found.push_back(operands);
  }
  return found;
}

void multiply_file(const MatmulOptions& options) {
  if (std::set<std::string>(options.accumulators.begin(), options.accumulators.end()).size() <
      options.accumulators.size()) {
    throw CLI::ValidationError("--accumulator", "a name stands there twice, expected each once");
  }
  check_output(options.input, options.output);
  const model::SafetensorsFile file(options.input);
  const model::GemmKernels& kernels =
      model::gemm_kernels(options.instructions ? *options.instructions : model::fastest_instruction_set());
  const std::vector<Operands> cases = find_operands(file);
  if (cases.empty()) {
    throw std::runtime_error(options.input.string() +
                             ": found no matrix 'x.CASE', expected it and 'w.CASE', and perhaps a vector 'b.CASE'");
  }
  std::vector<model::SafetensorsPart> parts;
  std::map<std::string, Work> work;  // by accumulator
  for (const Operands& operands : cases) {
    for (const std::string& name : options.accumulators) {
      const auto product = [&, &done = work[name], wanted = formats::parse_accumulator(name)] {
        const auto floats = [&](const std::string& tensor) { return file.tensor(tensor).to(at::kFloat); };
        const Tensor x = floats(operands.x), weight = floats(operands.weight);
        const Tensor bias = operands.bias.empty() ? Tensor{} : floats(operands.bias);
        Stopwatch clock;
        Tensor y = options.kernels == Kernels::fast ? model::fast_ordered_linear(kernels, wanted, x, weight, bias)
                                                    : model::ordered_linear(wanted, x, weight, bias);
        done.seconds += clock.lap();
        done.products += static_cast<double>(y.numel()) * static_cast<double>(x.size(1));
        return y;
      };
      parts.push_back({"y" + operands.x.substr(1) + "." + name, at::kFloat, operands.product, product});
    }
  }
  write_output(options.output, parts);
  print("{}: {} of {}, each by {}\n", options.output.string(), counted(cases.size(), "product"), options.input.string(),
        counted(options.accumulators.size(), "accumulator"));
  for (const auto& [name, done] : work) {
    print("{}: {:.3g} multiply-accumulates in {:.3g} s, {:.3g} a second\n", name, done.products, done.seconds,
          done.products / done.seconds);
  }
}

}  // namespace

void add_matmul(CLI::App& app) {
  CLI::App* command = app.add_subcommand("matmul", "Multiply the matrices of a safetensors file as accumulators do");
  command->footer(
      "For every x.CASE [rows, K] and w.CASE [Out, K], and b.CASE [Out] if it is there, x Wt + b is stored in\n"
      "float32 as y.CASE.ACCUMULATOR. Accumulators: float32, bfloat16:N and float16:N (the sum is rounded after\n"
      "every N products), ipt and systolic (pi0-quant's models of hardware).\n\n"
      "Example:\n  pi0 matmul --accumulator systolic,bfloat16:32 operands.safetensors products.safetensors");
  const auto options = std::make_shared<MatmulOptions>();
  command->add_option("--accumulator", options->accumulators, "Accumulators, with commas between them")
      ->delimiter(',')
      ->type_name("A[,A...]")
      ->check(accepted_by(formats::parse_accumulator))
      ->required();
  choose_value<Kernels>(
      command->add_option("--kernels", options->kernels,
                          "fast; reference: a plain loop for every sum, of float32 libtorch's product"),
      {{"fast", Kernels::fast}, {"reference", Kernels::reference}})
      ->default_str("fast");
  std::vector<std::pair<std::string, model::InstructionSet>> sets;
  for (const model::InstructionSet set : model::instruction_sets()) sets.emplace_back(name_of(set), set);
  choose_value(command->add_option("--instructions", options->instructions,
                                   "Instruction set of the fast kernels; default: the one measured fastest at start"),
               sets);
  command->add_option("input", options->input, "Safetensors file")->check(CLI::ExistingFile)->required();
  command->add_option("output", options->output, "File to write")->required();
  command->callback([options] { multiply_file(*options); });
}

}  // namespace pi0::tools
