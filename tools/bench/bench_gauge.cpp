#include "tools/bench/bench_gauge.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>
#include <tuple>

#include "model/backends/cpu/fast_linear.h"
#include "tools/common/stopwatch.h"

// MKL's product with a packed weight, where libtorch exports it; null elsewhere.
extern "C" {
[[gnu::weak]] std::size_t cblas_sgemm_pack_get_size(int operand, int m, int n, int k);
[[gnu::weak]] void cblas_sgemm_pack(int layout, int operand, int transposed, int m, int n, int k, float alpha,
                                    const float* from, int stride, float* to);
[[gnu::weak]] void cblas_sgemm_compute(int layout, int transposed_a, int transposed_b, int m, int n, int k,
                                       const float* a, int stride_a, const float* b, int stride_b, float beta, float* c,
                                       int stride_c);
}

namespace pi0::tools {
namespace {

constexpr int rows_of_x = 968, in_features = 2048, out_features = 16384;
constexpr double flop = 2.0 * rows_of_x * in_features * out_features;

// Values in [-1, 1): some random rows over and over, which is cheaper than drawing all.
at::Tensor operand(std::int64_t height, at::TensorOptions options) {
  constexpr std::int64_t drawn = 8;
  const at::Tensor some = at::rand({drawn, in_features}, options.dtype(at::kFloat)) * 2 - 1;
  return some.to(options.dtype().toScalarType()).repeat({height / drawn, 1});
}

// A GPU's functions return before its work is done.
void wait_for(const at::Tensor& result) {
  if (!result.device().is_cpu()) result.flatten()[0].item<float>();
}

std::function<void()> libtorch_product(at::TensorOptions options) {
  return
      [x = operand(rows_of_x, options), weight = operand(out_features, options)] { wait_for(at::linear(x, weight)); };
}

std::function<void()> own_product(const model::GemmKernels& kernels, at::ScalarType dtype) {
  return [&kernels, x = operand(rows_of_x, dtype), weight = model::pack_weight(operand(out_features, dtype))] {
    model::fast_linear(kernels, x, {weight});
  };
}

bool has_packed_sgemm() {
  return cblas_sgemm_pack_get_size != nullptr && cblas_sgemm_pack != nullptr && cblas_sgemm_compute != nullptr;
}

std::function<void()> packed_sgemm() {
  constexpr int row_major = 101, plain = 111, transposed = 112, packed = 151, operand_b = 162;
  const at::Tensor weight = operand(out_features, at::kFloat);
  const std::size_t bytes = cblas_sgemm_pack_get_size(operand_b, rows_of_x, out_features, in_features);
  const at::Tensor panels = at::empty({static_cast<std::int64_t>(bytes / sizeof(float)) + 1}, at::kFloat);
  cblas_sgemm_pack(row_major, operand_b, transposed, rows_of_x, out_features, in_features, 1.0F,
                   weight.const_data_ptr<float>(), in_features, panels.mutable_data_ptr<float>());
  return [x = operand(rows_of_x, at::kFloat), panels, result = at::empty({rows_of_x, out_features}, at::kFloat)] {
    cblas_sgemm_compute(row_major, plain, packed, rows_of_x, out_features, in_features, x.const_data_ptr<float>(),
                        in_features, panels.const_data_ptr<float>(), out_features, 0.0F,
                        result.mutable_data_ptr<float>(), out_features);
  };
}

}  // namespace

GemmGauge::GemmGauge(at::Device device) {
  for (const auto& [name, dtype, operands] : {std::tuple{"libtorch float32", at::kFloat, Operands::float32},
                                              std::tuple{"libtorch bfloat16", at::kBFloat16, Operands::bfloat16}}) {
    const at::TensorOptions options = at::device(device).dtype(dtype);
    products_.push_back({name, operands, [options] { return libtorch_product(options); }});
  }
  if (device.is_cpu()) {
    if (has_packed_sgemm()) {
      products_.push_back({"packed sgemm", Operands::float32, packed_sgemm});
    }
    const model::GemmKernels& kernels = model::gemm_kernels(model::instruction_sets().back());
    products_.push_back({"own float32", Operands::float32, [&kernels] { return own_product(kernels, at::kFloat); }});
    if (kernels.has_pairs) {
      products_.push_back(
          {"own bfloat16", Operands::bfloat16, [&kernels] { return own_product(kernels, at::kBFloat16); }});
    }
  }
  for (std::size_t i = 0; i < products_.size(); ++i) measure(i);
}

std::size_t GemmGauge::fastest(Operands operands) const {
  std::size_t fastest = 0;  // exact for both
  for (std::size_t i = 1; i < products_.size(); ++i) {
    if (products_[i].operands == Operands::bfloat16 && operands == Operands::float32) continue;
    if (products_[i].best > products_[fastest].best) fastest = i;
  }
  return fastest;
}

double GemmGauge::measure(std::size_t product) {
  const std::function<void()> multiply = products_[product].prepare();
  double least = 1e9, all = 0;
  for (int i = 0; i < 3 && all < 0.5; ++i) {
    Stopwatch clock;
    multiply();
    const double seconds = clock.lap();
    least = std::min(least, seconds);
    all += seconds;
  }
  products_[product].best = std::max(products_[product].best, flop / least);
  return flop / least;
}

double read_bandwidth(at::Device device) {
  const at::Tensor buffer = at::ones({128 << 20}, at::device(device).dtype(at::kFloat));
  double least = 1e9;
  for (int i = 0; i < 3; ++i) {
    Stopwatch clock;
    wait_for(buffer.sum());
    least = std::min(least, clock.lap());
  }
  return static_cast<double>(buffer.nbytes()) / least;
}

double peak_resident_gib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    double kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib / (1 << 20);
  }
  throw std::runtime_error("/proc/self/status: has no VmHWM");
}

std::optional<double> peak_device_gib(at::Device device) {
  if (device.is_cpu()) return std::nullopt;
  constexpr std::size_t all_pools = 0;
  const auto stats = at::getDeviceAllocator(device.type())->getDeviceStats(device.index());
  return static_cast<double>(stats.allocated_bytes[all_pools].peak) / (1 << 30);
}

void forget_peak_resident() { std::ofstream("/proc/self/clear_refs") << "5"; }

}  // namespace pi0::tools
