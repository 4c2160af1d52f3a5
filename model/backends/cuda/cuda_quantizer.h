// Quantized linears and attentions on a device. Nothing waits for the device, so that a request's work can be recorded
// once and replayed: errors gather in the device's memory and come over in one copy when the request ends. The same
// function as the reference's but for the order of sums; products of 16-bit operands run on tensor cores, which
// multiply them exactly and add in float32.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "model/backends/cuda/device_kernels.h"
#include "model/backends/reference/reference_quantizer.h"

namespace pi0::model {

// What calls leave in the device's memory.
class DeviceErrors {
 public:
  struct Record {
    formats::ErrorStats errors;
    std::uint32_t input_overflowed = 0;
    std::uint32_t output_overflowed = 0;
    std::uint32_t arrived = 0;  // parts of a call under way
  };

  // `moved` is called when records have moved, which makes recorded work void.
  explicit DeviceErrors(std::function<void()> moved) : moved_(std::move(moved)) {}

  void add_site() { sites_.emplace_back(); }  // before the first call of slot()

  // On the device: the site's record of a call's first sample; the others follow at `stride` bytes.
  struct Slot {
    Record* first;
    std::int64_t stride;
  };
  Slot slot(std::size_t site, std::int64_t samples, at::Device device);

  // Fetches everything since the last call.
  void collect(ErrorSink& sink);

  // The next record collected of a site's first sample is kept, and counted again for `samples` samples of a request
  // whenever repeat() asked for that.
  void keep(std::size_t site) { sites_[site].keeps = true; }
  void repeat(std::size_t site, std::int64_t samples) { sites_[site].repeated_samples = samples; }

 private:
  struct Site {
    bool keeps = false, has_kept = false;  // what is collected next; what was collected in this call
    std::int64_t repeated_samples = 0;     // of the request under way
    formats::ErrorStats kept = {};
  };
  const std::function<void()> moved_;
  std::vector<Site> sites_;
  Tensor records_;  // [samples, bytes of all sites' records]
};

class CudaQuantizer : public ReferenceQuantizer {
 public:
  CudaQuantizer(const Backend& backend, const DeviceKernels& kernels, ErrorSink& sink, std::function<void()> moved);

  std::size_t add(const Linear& linear, formats::FormatPair formats) override;
  std::size_t add(const Attention& attention, formats::FormatPair formats) override;
  std::vector<Tensor> linears(std::span<const std::size_t> sites, const Tensor& x) override;
  bool has_exact_operands(std::size_t site, at::ScalarType dtype) const override;
  void collect() override { errors_.collect(sink_); }
  bool observes_joined_calls() const override { return true; }
  void keep_observed(std::size_t site) override { errors_.keep(site); }
  void repeat_observed(std::size_t site, std::int64_t samples) override {
    errors_.repeat(site, mode.samples_apart ? samples : 1);
  }

 private:
  Tensor round_operand(std::size_t site, const Tensor& operand) override;
  Tensor round_attended(std::size_t site, const Tensor& attended, const Tensor& exact) override;

  // Rounds to the input format that the sites share; an overflow is noted in each.
  Tensor rounded(std::span<const std::size_t> sites, const Tensor& values, at::ScalarType stored);

  // For one call of the kernels: what becomes of its sums in `result`, and room for its parts' errors.
  struct Finish {
    ResultCall call;
    Tensor partial;
  };
  Finish finish_of(std::size_t site, const Tensor& result, bool compared, std::int64_t records, std::int64_t parts);

  // Rounds `sums` into `result`; an undefined `exact` is not compared with.
  Tensor finish(std::size_t site, const Tensor& sums, const Tensor& exact, const Tensor& result);

  bool takes_few_rows(std::size_t site, const Tensor& x) const;
  bool alike(std::span<const std::size_t> sites, const Tensor& x) const;
  std::vector<Tensor> few_rows(std::span<const std::size_t> sites, const Tensor& x);
  std::vector<Tensor> many_rows(std::span<const std::size_t> sites, const Tensor& x);
  Tensor many_rows(std::size_t site, const Tensor& x, const Tensor& rounded);
  const Tensor& wide_weight(std::size_t site);
  const MatmulSite& module_of(std::size_t site) const { return *parts_[site].module; }

  struct Parts {
    const MatmulSite* module;
    Tensor terms, exact_terms;  // the bias, rounded and as it is, [Out] float32; undefined without one
    Tensor wide_weight;         // codes of 8 bits as bfloat16, once many rows were multiplied with them
  };
  const DeviceKernels& kernels_;
  DeviceErrors errors_;
  std::vector<Parts> parts_;  // by site
};

}  // namespace pi0::model
