// Quantized linears and attentions on a device. Calls do not wait for the device, so that a request's work can be
// recorded and replayed: errors accumulate in device memory and are copied to the host when the request ends. The
// results are the reference's except for the order of sums; products of 16-bit operands run on tensor cores, which
// multiply them exactly and add in float32.
#pragma once

#include <c10/util/FunctionRef.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/backends/cuda/device_kernels.h"
#include "model/backends/reference/reference_quantizer.h"

namespace pi0::model {

// Errors in device memory: a record for each site and sample.
class DeviceErrors {
 public:
  struct Record {
    formats::ErrorStats errors;
    std::uint32_t input_overflowed = 0;
    std::uint32_t output_overflowed = 0;
    std::uint32_t arrived = 0;  // finished parts of the call that is running
  };

  // `moved` is called when records have moved: recorded work must then be discarded.
  explicit DeviceErrors(std::function<void()> moved) : moved_(std::move(moved)) {}

  void add_site() { ++site_count_; }  // before the first call of slot()

  // On the device: the site's record of a call's first sample; the others follow at `stride` bytes.
  struct Slot {
    Record* first;
    std::int64_t stride;
  };
  Slot slot(std::size_t site, std::int64_t samples, at::Device device);

  // Passes everything since the last call on: overflows to the sink, errors to `observe`.
  using Observe = c10::function_ref<void(std::size_t site, std::size_t sample, const formats::ErrorStats& errors)>;
  void collect(ErrorSink& sink, Observe observe);

 private:
  const std::function<void()> moved_;
  std::size_t site_count_ = 0;
  Tensor records_;  // [samples, bytes of all sites' records]
};

class CudaQuantizer : public ReferenceQuantizer {
 public:
  CudaQuantizer(const Backend& backend, const DeviceKernels& kernels, ErrorSink& sink, std::function<void()> moved);

  std::size_t add(const Linear& linear, const formats::SiteFormats& formats,
                  const InputStatistics& statistics) override;
  std::size_t add(const Attention& attention, const formats::SiteFormats& formats) override;
  std::size_t add(const KvCacheSite& cache, const formats::NumberFormat& format) override;
  std::size_t add(const VectorSite& vector, const formats::NumberFormat& format) override;
  std::vector<Tensor> linears(std::span<const std::size_t> sites, const Tensor& x) override;
  bool has_exact_product(std::size_t site, at::ScalarType dtype) const override;
  bool splits_errors() const override { return false; }
  void collect() override;

 private:
  Tensor round_operand(std::size_t site, const Tensor& operand) override;
  Tensor round_attended(std::size_t site, const Tensor& attended, const Tensor& exact) override;

  // Rounds to the input format that the sites share; an overflow is recorded for each.
  Tensor rounded(std::span<const std::size_t> sites, const Tensor& values, at::ScalarType stored);

  // What one call of the kernels does with its sums, and memory for the error sums of its parts.
  struct Finish {
    ResultCall call;
    Tensor partial;
  };
  Finish finish_of(std::size_t site, const Tensor& result, bool compared, std::int64_t records, std::int64_t parts);

  // Rounds `sums` into `result` and compares with `exact`, unless that is undefined.
  Tensor finish(std::size_t site, const Tensor& sums, const Tensor& exact, const Tensor& result);

  bool takes_few_rows(std::size_t site, const Tensor& x) const;
  bool alike(std::span<const std::size_t> sites, const Tensor& x) const;
  std::vector<Tensor> few_rows(std::span<const std::size_t> sites, const Tensor& x);
  std::vector<Tensor> many_rows(std::span<const std::size_t> sites, const Tensor& x);
  Tensor many_rows(std::size_t site, const Tensor& x, const Tensor& rounded);
  const Tensor& wide_weight(std::size_t site);
  const MatmulSite& module_of(std::size_t site) const { return *sites_[site].module; }

  struct Parts {
    formats::Format input, output;  // the site's formats, which are plain casts
    Tensor terms, exact_terms;      // the bias, rounded and as it is, [Out] float32; undefined without one
    Tensor wide_weight;             // 8-bit codes as bfloat16; made when many rows need it first
  };
  const DeviceKernels& kernels_;
  DeviceErrors errors_;
  std::vector<Parts> parts_;  // by site
};

}  // namespace pi0::model
