// One linear or attention by itself, with given weights.
#pragma once

#include <memory>
#include <string>

#include "model/attention.h"
#include "model/linear.h"

namespace pi0::test {

// Gives every parameter whose name ends in "weight" or "bias" the same tensor, whatever precision is asked for.
class GivenWeights : public model::WeightSource {
 public:
  at::Tensor weight, bias;
  at::Tensor load(const std::string& name, at::IntArrayRef, model::Storage) override {
    return name.ends_with("bias") ? bias : weight;
  }
  void pass_over(const std::string&, at::IntArrayRef) override {}
};

// Random operands of one attention: 2 samples, 8 heads of 16 that share their keys, 5 positions after a prefix of 7.
struct AttentionCase {
  explicit AttentionCase(at::ScalarType dtype)
      : prefix{random({2, 1, 7, 16}, dtype), random({2, 1, 7, 16}, dtype)},
        operands{.form = model::AttentionForm::eager,
                 .query = random({2, 8, 5, 16}, dtype),
                 .prefix = &prefix,
                 .key = random({2, 1, 5, 16}, dtype),
                 .value = random({2, 1, 5, 16}, dtype),
                 .mask = at::zeros({2, 1, 5, 12}),
                 .scale = 0.25} {}
  AttentionCase(const AttentionCase&) = delete;
  AttentionCase& operator=(const AttentionCase&) = delete;

  const model::LayerKv prefix;
  const model::AttentionOperands operands;

 private:
  static at::Tensor random(at::IntArrayRef shape, at::ScalarType dtype) { return at::randn(shape).to(dtype); }
};

class LoneSite {
 public:
  explicit LoneSite(model::Execution execution) : execution_(std::move(execution)) {}

  // With a bias where that is defined.
  model::Linear& add_linear(const std::string& path, const at::Tensor& weight, const at::Tensor& bias = {}) {
    weights_.weight = weight;
    weights_.bias = bias;
    return context().add<model::Linear>(*root_, path, weight.size(1), weight.size(0),
                                        bias.defined() ? model::Bias::present : model::Bias::none);
  }
  model::Attention& add_attention(const std::string& path, std::int64_t head_dim) {
    return context().add<model::Attention>(*root_, path, head_dim);
  }
  model::SiteList sites() const { return model::SiteList(*root_); }

 private:
  model::BuildContext context() {
    return {weights_, model::Precision::bfloat16, execution_.device, *execution_.backend};
  }

  model::Execution execution_;
  GivenWeights weights_;
  std::shared_ptr<model::Group> root_ = std::make_shared<model::Group>();
};

}  // namespace pi0::test
