// The hook of a model that is fast on a device. Nothing in it waits for the device, so that a request's work can be
// recorded once and replayed: errors gather in the device's memory and come over in one copy when the request ends.
// The same function as QuantHook, but for the order of sums; products of 16-bit operands run on tensor cores,
// which multiply them exactly and add in float32.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "quant/kernels/device_kernels.h"
#include "quant/quant_hook.h"

namespace pi0::quant {

// What the hooks of one attachment leave on the device.
class DeviceErrors {
 public:
  struct Record {
    ErrorStats errors;
    std::uint32_t input_overflowed = 0;
    std::uint32_t output_overflowed = 0;
    std::uint32_t arrived = 0;  // parts of a call under way
  };

  // `moved` is called when records have moved, which makes recorded work void.
  DeviceErrors(at::Device device, std::function<void()> moved);

  // Before the first call of slot(). `entry` is the site's in the book.
  std::size_t add_site(std::size_t entry, OverflowNote& overflow);

  // On the device: the site's record of a call's first sample; the others follow at `stride` bytes.
  struct Slot {
    Record* first;
    std::int64_t stride;
  };
  Slot slot(std::size_t site, std::int64_t samples);

  // Fetches everything since the last call, and warns of what overflowed.
  std::vector<StatsBook::Gathered> collect();

  // What a site's first sample has when it is collected next is kept, and added to `samples` samples of what is
  // collected whenever that was asked for.
  void keep(std::size_t site) { sites_[site].keeps = true; }
  void repeat(std::size_t site, std::int64_t samples) { sites_[site].repeated_samples = samples; }

 private:
  struct Site {
    std::size_t entry;
    OverflowNote* overflow;
    bool keeps = false, has_kept = false;  // what is collected next; what was collected in this call
    std::int64_t repeated_samples = 0;     // of the request under way
    ErrorStats kept = {};
  };
  const at::Device device_;
  const std::function<void()> moved_;
  std::vector<Site> sites_;
  at::Tensor records_;  // [samples, bytes of all sites' records]
};

class DeviceHook : public QuantHook {
 public:
  // As QuantHook. `errors` is shared by the hooks of one attachment and outlives them.
  DeviceHook(model::MatmulSite& site, FormatPair formats, const HookContext& context, std::size_t entry,
             const DeviceKernels& kernels, DeviceErrors& errors);

  model::Tensor linear(const model::Tensor& x) override;
  std::vector<model::Tensor> linears(std::span<model::MatmulHook* const> hooks, const model::Tensor& x) override;
  bool observes_joined_calls() const override { return true; }
  void keep_observed() override { errors_.keep(record_); }
  void repeat_observed(std::int64_t samples) override { errors_.repeat(record_, context_.samples_apart ? samples : 1); }

 private:
  model::Tensor round_operand(const model::Tensor& operand) override;
  model::Tensor settle_attention(const model::Tensor& attended, const model::Tensor& reference) override;
  // For hooks with the same input format; what overflows does so in all their inputs.
  model::Tensor rounded(const model::Tensor& values, at::ScalarType stored, std::span<DeviceHook* const> hooks);

  // For one call of the kernels: what becomes of its sums in `result`, and room for its parts' errors.
  struct Finish {
    ResultCall call;
    model::Tensor partial;
  };
  Finish finish_of(const model::Tensor& result, bool compared, std::int64_t records, std::int64_t parts);

  // Rounds `sums` into `result`; an undefined `exact` is not compared with.
  model::Tensor settle(const model::Tensor& sums, const model::Tensor& exact, const model::Tensor& result);

  bool takes_few_rows(const model::Tensor& x) const;
  std::vector<model::Tensor> few_rows(std::span<DeviceHook* const> hooks, const model::Tensor& x);
  std::vector<model::Tensor> many_rows(std::span<DeviceHook* const> hooks, const model::Tensor& x);
  model::Tensor many_rows(const model::Tensor& x, const model::Tensor& rounded);
  model::Tensor result_of(const model::Tensor& x) const;
  bool exact_operands(const model::Tensor& x) const;  // whether rounding changes neither x nor the weight
  const model::Tensor& wide_weight();

  const DeviceKernels& kernels_;
  DeviceErrors& errors_;
  const std::size_t record_;
  model::Tensor terms_, exact_terms_;  // the bias, rounded and as it is, [Out] float32; undefined without one
  model::Tensor wide_weight_;          // codes of 8 bits as bfloat16, once many rows were multiplied with them
};

}  // namespace pi0::quant
