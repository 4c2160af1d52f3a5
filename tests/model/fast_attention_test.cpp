// SigLIP's attention with the fast kernels; Gemma's is compared with the whole model (pi0_test.cpp).
#include "model/backends/cpu/fast_attention.h"

#include "model/attention.h"
#include "support/catch.h"
#include "support/tensors.h"

namespace pi0 {
namespace {

using at::Tensor;

// softmax(QKᵀ)V in double, with the weights rounded before they are divided by their sum.
Tensor exact(const model::AttentionOperands& in) {
  const auto wide = [](const Tensor& heads) { return heads.to(at::kDouble); };
  const Tensor scores = at::matmul(wide(in.query), wide(in.key).transpose(2, 3)) * in.scale;
  const Tensor weights = (scores - scores.amax(-1, true)).exp();
  const Tensor rounded = wide(weights.to(in.query.scalar_type()));
  return at::matmul(rounded, wide(in.value)) / weights.sum(-1, true);
}

TEST_CASE("fast attention without a mask is scaled_dot_product_attention", "[model][fast]") {
  at::manual_seed(5);
  for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat}) {
    // Whole panels and strips of SigLIP; then parts of both, of an odd and of a small size, and a single key.
    for (const auto& [heads, length, size] : {std::tuple{2, 256, 72}, {3, 101, 72}, {2, 77, 7}, {1, 1, 40}}) {
      const auto random = [&, heads = heads, length = length, size = size] {  // as a projection's heads lie
        return (2 * at::randn({2, length, heads * size})).to(dtype).view({2, length, heads, size}).transpose(1, 2);
      };
      const model::AttentionOperands in{.form = model::AttentionForm::fused,
                                        .query = random(),
                                        .prefix = nullptr,
                                        .key = random(),
                                        .value = random(),
                                        .mask = {},
                                        .scale = 1 / std::sqrt(static_cast<double>(size))};
      const Tensor expected =
          at::scaled_dot_product_attention(in.query, in.key, in.value, {}, 0.0, /*is_causal=*/false, in.scale);
      const bool is_rounded = dtype == at::kBFloat16;
      for (const model::InstructionSet set : model::instruction_sets()) {
        const Tensor found = model::fast_attention(model::gemm_kernels(set), in);
        INFO(name_of(set) << " " << dtype << " heads of " << size << ", " << length << " keys");
        REQUIRE(found.sizes() == expected.sizes());
        REQUIRE(found.scalar_type() == dtype);
        // Another last bit of e^x or order of sums rounds a weight or a result the other way here and there; LibTorch's
        // e^x for bfloat16 is the less exact one.
        CHECK(test::relative_rms(found, expected) <= (is_rounded ? 2e-3 : 1e-6));
        CHECK(test::relative_rms(found, exact(in).to(dtype)) <= (is_rounded ? 5e-4 : 1e-6));
      }
    }
  }
}

}  // namespace
}  // namespace pi0
