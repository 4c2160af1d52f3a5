// Methods that change a linear's operands: the product stays, and rounding costs less where a few channels are large.
#include "model/operand_transform.h"

#include "model/number_rounding.h"
#include "support/catch.h"
#include "support/tensors.h"

namespace pi0 {
namespace {

using formats::Methods;
using model::InputStatistics;
using model::OperandTransform;

// Activations with a few channels a hundred times as large as the others, as language models have them.
at::Tensor with_outliers(std::int64_t rows, std::int64_t in) {
  at::Tensor x = at::randn({rows, in});
  x.select(1, 3).mul_(100);
  x.select(1, in / 2).mul_(60);
  return x;
}

InputStatistics statistics_of(const at::Tensor& x) { return {x.abs().amax(0), {}}; }

// Relative RMS error of the product of the changed operands, rounded to a format.
double error_of(const at::Tensor& x, const at::Tensor& weight, const OperandTransform& transform, const char* name) {
  const auto format = formats::parse_number_format(name);
  const at::Tensor rounded = model::round_activations(transform.inputs(x), format).values;
  const at::Tensor changed = model::round_matrix(transform.weight(weight).contiguous(), format);
  return test::relative_rms(at::linear(rounded, changed), at::linear(x, weight));
}

TEST_CASE("rotation and smoothing leave the product as it is", "[model][methods]") {
  at::manual_seed(11);
  for (const std::int64_t in : {std::int64_t{192}, std::int64_t{48}, std::int64_t{37}}) {
    const at::Tensor x = with_outliers(20, in), weight = at::randn({30, in});
    const at::Tensor exact = at::linear(x, weight);
    for (const Methods& methods : {Methods{true, {}, {}}, Methods{false, 0.5, {}}, Methods{true, 0.7, {}}}) {
      const OperandTransform transform(weight, methods, statistics_of(x));
      INFO(in << " " << methods.rotate << " " << methods.smooth.value_or(-1));
      CHECK(test::relative_rms(at::linear(transform.inputs(x), transform.weight(weight)), exact) < 1e-6);
    }
  }
}

TEST_CASE("rotation and smoothing lower the error of few bits where channels differ", "[model][methods]") {
  at::manual_seed(12);
  const at::Tensor x = with_outliers(64, 512), weight = at::randn({128, 512});
  for (const char* format : {"int4:row", "int4:group128", "mxfp4"}) {
    const double plain = error_of(x, weight, {}, format);
    const double rotated = error_of(x, weight, {weight, {true, {}, {}}, {}}, format);
    const double smoothed = error_of(x, weight, {weight, {false, 0.5, {}}, statistics_of(x)}, format);
    INFO(format << ": plain " << plain << ", rotated " << rotated << ", smoothed " << smoothed);
    // Scales of MX already keep an outlier to its 32 values, so that there is less to gain.
    const bool is_mx = std::string_view(format) == "mxfp4";
    CHECK(rotated < (is_mx ? 0.95 : 0.8) * plain);
    if (!is_mx) CHECK(smoothed < 0.8 * plain);
  }
}

TEST_CASE("clipping takes the percentile of the weights and the calibration's of inputs", "[model][methods]") {
  const at::Tensor weight = at::arange(1, 102, at::kFloat).view({1, 101});
  const OperandTransform transform(weight, {false, {}, 90.5}, {{}, 3.0F});
  CHECK(transform.weight(weight).max().item<float>() == 91.5F);  // between the 91st and 92nd of 101 values
  CHECK(at::equal(transform.inputs(at::tensor({-5.0F, 2.0F, 4.0F})), at::tensor({-3.0F, 2.0F, 3.0F})));
  const OperandTransform uncalibrated(weight, {false, {}, 90.5}, {});
  CHECK_FALSE(uncalibrated.changes_inputs());
  CHECK(uncalibrated.changes_weights());
  CHECK_THROWS_WITH(OperandTransform(weight, {false, 0.5, {}}, {}), contains_text("calibration"));
}

}  // namespace
}  // namespace pi0
