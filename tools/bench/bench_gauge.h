// The best speed of this machine, as a reference for requests, and the memory used so far.
#pragma once

#include <ATen/ATen.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace pi0::tools {

// Ways to multiply [968, 2048] by [2048, 16384], the largest product of a full prefix, with as many
// threads as libtorch uses: libtorch's own, MKL's and ours.
class GemmGauge {
 public:
  // What the operands' values have to fit in for a product to be exact, but for the order of sums. A GPU multiplies
  // float16 as fast as bfloat16.
  enum class Operands { float32, bfloat16 };

  struct Product {
    std::string name;
    Operands operands;
    std::function<std::function<void()>()> prepare;  // makes operands; the result multiplies them
    double best = 0;                                 // FLOP per second
  };

  // Measures every product that there is on `device`.
  explicit GemmGauge(at::Device device);

  // Their addresses do not change.
  const std::vector<Product>& products() const { return products_; }

  // The index of the fastest one that is exact for such operands; those for float32 are for both.
  std::size_t fastest(Operands operands) const;

  // FLOP per second right now, the best of three or of as many as begin within half a second. Raises the product's
  // `best`.
  double measure(std::size_t product);

 private:
  std::vector<Product> products_;
};

// Bytes per second that all threads read, the best of three passes over 512 MiB.
double read_bandwidth(at::Device device);

// The peak of this process's memory since its start, or since the last forget_peak_resident() if the system allows it.
double peak_resident_gib();
void forget_peak_resident();

// The same of tensors on a GPU; none for a CPU.
std::optional<double> peak_device_gib(at::Device device);

}  // namespace pi0::tools
