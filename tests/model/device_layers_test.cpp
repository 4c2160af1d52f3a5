// A device's kernels on the CPU, thread by thread, against the reference's operations; on a GPU
// where there is one.
#include <array>

#include "model/attention.h"
#include "model/backends/cuda/cuda_backend.h"
#include "support/catch.h"
#include "support/devices.h"
#include "support/lone_site.h"
#include "support/tensors.h"

namespace pi0 {
namespace {

using at::Tensor;

// Where a backend under test has its tensors.
struct Place {
  at::Device device;
  std::shared_ptr<const model::Backend> backend;
};

std::vector<Place> places() {
  std::vector<Place> all{{at::kCPU, test::like_gpu_in_turn().backend}};
  if (const auto gpu = test::fast_gpu()) all.push_back({gpu->device, gpu->backend});
  return all;
}

const model::Backend& reference() {
  static const std::shared_ptr<const model::Backend> backend = model::reference_backend();
  return *backend;
}

// Another order of sums sends a rounding the other way here and there: by a step of bfloat16 at
// most, and rarely.
void check_close(const Tensor& found, const Tensor& expected) {
  REQUIRE(found.sizes() == expected.sizes());
  REQUIRE(found.scalar_type() == expected.scalar_type());
  const bool rounded = expected.scalar_type() == at::kBFloat16;
  const Tensor close = at::isclose(found.cpu().to(at::kDouble), expected.to(at::kDouble), rounded ? 1.0 / 128 : 1e-5,
                                   rounded ? 1e-3 : 1e-5);
  INFO(expected.scalar_type() << expected.sizes() << " largest difference "
                              << (found.cpu().to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>());
  CHECK(close.all().item<bool>());
  CHECK(test::relative_rms(found.cpu(), expected) <= (rounded ? 1.5e-3 : 1e-6));
}

TEST_CASE("device norms are the reference's, with what they add up", "[model][device][gpu]") {
  at::manual_seed(1);
  for (const Place& place : places()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      for (const std::int64_t width : {48, 1152, 2056}) {
        const auto random = [&](at::IntArrayRef shape, at::ScalarType as) { return at::randn(shape).to(as); };
        const Tensor x = random({2, 5, width}, dtype) + 3, update = random({2, 5, width}, dtype);
        const Tensor modulation = random({2, 3 * width}, at::kFloat), weight = random({width}, at::kFloat);
        const Tensor gate = modulation.unsqueeze(1).chunk(3, -1)[2];
        const auto there = [&](const Tensor& tensor) { return tensor.defined() ? tensor.to(place.device) : tensor; };
        const auto moved = [&](const model::Residual& in) {
          return model::Residual{there(in.x), there(in.update),
                                 in.gate.defined() ? there(modulation).unsqueeze(1).chunk(3, -1)[2] : in.gate};
        };
        for (const model::Residual& in :
             {model::Residual{x}, model::Residual{x, update}, model::Residual{x, update, gate}}) {
          const model::Normed plain = place.backend->rms_norm(moved(in), there(weight), {}, 1e-6);
          const model::Normed expected = reference().rms_norm(in, weight, {}, 1e-6);
          CHECK(at::equal(plain.sum.cpu(), expected.sum));
          check_close(plain.x, expected.x);
          check_close(place.backend->rms_norm(moved(in), {}, there(modulation), 1e-6).x,
                      reference().rms_norm(in, {}, modulation, 1e-6).x);
          const Tensor scale = weight.to(dtype), bias = random({width}, dtype);
          const model::Normed layer = place.backend->layer_norm(moved(in), there(scale), there(bias), 1e-6);
          CHECK(at::equal(layer.sum.cpu(), expected.sum));
          check_close(layer.x, reference().layer_norm(in, scale, bias, 1e-6).x);
        }
        // One modulation for all samples.
        const Tensor one = modulation.narrow(0, 0, 1);
        const model::Residual both{x, update, one.unsqueeze(1).chunk(3, -1)[2]};
        const Tensor one_there = there(one);
        check_close(
            place.backend
                ->rms_norm({there(x), there(update), one_there.unsqueeze(1).chunk(3, -1)[2]}, {}, one_there, 1e-6)
                .x,
            reference().rms_norm(both, {}, one, 1e-6).x);
      }
    }
  }
}

TEST_CASE("device GELU and rotary embedding are the reference's, of parts of a tensor too", "[model][device][gpu]") {
  at::manual_seed(2);
  for (const Place& place : places()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const Tensor wide = (at::randn({2, 7, 2 * 40}) * 3).to(dtype), there = wide.to(place.device);
      check_close(place.backend->gelu(there, {}), reference().gelu(wide, {}));
      check_close(place.backend->gelu(there.narrow(2, 0, 40), there.narrow(2, 40, 40)),
                  reference().gelu(wide.narrow(2, 0, 40), wide.narrow(2, 40, 40)));

      const Tensor joined = at::randn({2, 7, 5 * 16}).to(dtype);
      const model::RotaryEmbedding rotary(16, model::Precision::bfloat16, at::kCPU);
      const model::RotaryAngles angles = rotary.angles(at::arange(14).view({2, 7}), dtype);
      const auto heads = [](const Tensor& all, std::int64_t first, std::int64_t count) {
        return all.narrow(2, first * 16, count * 16).view({2, 7, count, 16}).transpose(1, 2);
      };
      const Tensor joined_there = joined.to(place.device);
      const std::array<Tensor, 2> both = {heads(joined, 0, 4), heads(joined, 4, 1)};
      const std::array<Tensor, 2> both_there = {heads(joined_there, 0, 4), heads(joined_there, 4, 1)};
      const model::RotaryAngles angles_there{angles.cos.to(place.device), angles.sin.to(place.device)};
      const auto found = place.backend->rotate(both_there, angles_there);
      const auto expected = reference().rotate(both, angles);
      CHECK(at::equal(found[0].cpu(), expected[0]));
      CHECK(at::equal(found[1].cpu(), expected[1]));
      CHECK(at::equal(place.backend->rotate({&both_there[1], 1}, angles_there)[0].cpu(), expected[1]));
    }
  }
}

TEST_CASE("device attention is the reference's", "[model][device][gpu]") {
  at::manual_seed(3);
  struct Case {
    std::int64_t samples, heads, groups, tokens, prefix, size;
    model::AttentionForm form;
  };
  using enum model::AttentionForm;
  for (const Place& place : places()) {
    for (const Case& c :
         {Case{1, 8, 1, 15, 70, 16, eager}, Case{2, 4, 2, 5, 0, 72, eager}, Case{1, 8, 1, 40, 11, 256, eager},
          Case{2, 3, 3, 33, 0, 16, fused}, Case{1, 2, 2, 200, 0, 72, fused}}) {
      const std::int64_t keys = c.prefix + c.tokens;
      const auto random = [&](std::int64_t heads,
                              std::int64_t tokens) {  // as a projection's heads lie
        return at::randn({c.samples, tokens, heads * c.size})
            .to(at::kBFloat16)
            .view({c.samples, tokens, heads, c.size})
            .transpose(1, 2);
      };
      model::LayerKv prefix;
      if (c.prefix > 0) prefix = {random(c.groups, c.prefix), random(c.groups, c.prefix)};
      model::AttentionOperands in{.form = c.form,
                                  .query = random(c.heads, c.tokens),
                                  .prefix = c.prefix > 0 ? &prefix : nullptr,
                                  .key = random(c.groups, c.tokens),
                                  .value = random(c.groups, c.tokens),
                                  .mask = {},
                                  .scale = 1 / std::sqrt(static_cast<double>(c.size))};
      if (c.form == eager) {
        in.mask = at::where(at::rand({c.samples, 1, c.tokens, keys}) < 0.2, -2.3819763e38, 0.0).to(at::kFloat);
      }
      const Tensor expected = reference().attention(in);
      for (Tensor* operand : {&in.query, &prefix.key, &prefix.value, &in.key, &in.value, &in.mask}) {
        if (operand->defined()) *operand = operand->to(place.device);
      }
      const Tensor found = place.backend->attention(in);
      INFO(place.device.str() << " heads of " << c.size << ", " << keys << " keys");
      REQUIRE(found.sizes() == expected.sizes());
      CHECK(test::relative_rms(found.cpu(), expected) <= 1.5e-3);
      CHECK(at::isclose(found.cpu().to(at::kFloat), expected.to(at::kFloat), 1.0 / 64, 3e-3).all().item<bool>());
    }
  }
}

TEST_CASE("device products of few rows are linears, alone, joined and gated", "[model][device][gpu]") {
  at::manual_seed(4);
  for (const Place& place : places()) {
    for (const std::int64_t in : {48, 1024, 1096}) {
      test::LoneSite lone({place.device, place.backend});
      const auto add = [&](const std::string& name, std::int64_t out, bool has_bias) {
        const Tensor weight = (at::randn({out, in}) / std::sqrt(static_cast<double>(in))).to(at::kBFloat16);
        return &lone.add_linear(name, weight, has_bias ? at::randn({out}).to(at::kBFloat16) : Tensor{});
      };
      const auto plain = [](const model::Linear* linear, const Tensor& x) {
        return at::linear(x, linear->weight().cpu(), linear->bias().defined() ? linear->bias().cpu() : Tensor{});
      };
      const std::vector<model::Linear*> three = {add("q_proj", 40, true), add("k_proj", 16, true),
                                                 add("v_proj", 8, true)};
      for (const std::int64_t rows : {1, 15, 16, 37}) {
        INFO(place.device.str() << " " << in << " terms, " << rows << " rows");
        const Tensor x = at::randn({1, rows, in}).to(at::kBFloat16);
        check_close(place.backend->linear(*three[0], x.to(place.device)), plain(three[0], x));
        const model::JoinedWeights joined = place.backend->join(three);
        const std::vector<Tensor> found = place.backend->linears(three, joined, x.to(place.device));
        for (std::size_t i = 0; i < found.size(); ++i) check_close(found[i], plain(three[i], x));
      }

      const std::vector<model::Linear*> two = {add("gate_proj", 40, false), add("up_proj", 40, false)};
      for (const std::int64_t rows : {15, 70}) {
        const Tensor x = at::randn({1, rows, in}).to(at::kBFloat16);
        const Tensor expected = reference().gelu(plain(two[0], x), plain(two[1], x));
        const Tensor found = place.backend->gated_linears(two, place.backend->join(two), x.to(place.device));
        CHECK(test::relative_rms(found.cpu(), expected) <= 3e-3);
      }
    }
  }
}

}  // namespace
}  // namespace pi0
