// Chunks that continue the previous one: equal to LeRobot's where it guides them (goldens/continuation).
#include "model/continuation.h"

#include <map>
#include <sstream>

#include "support/catch.h"
#include "support/devices.h"
#include "support/tensors.h"
#include "support/tiny_model.h"

namespace pi0 {
namespace {

using model::Precision;
using model::PrefixSchedule;

// <schedule>_<number>_<number>_<number>, as goldens/continuation has them.
struct NamedCase {
  PrefixSchedule schedule;
  std::int64_t numbers[3];
};

NamedCase parse_case(const std::string& name) {
  static const std::map<std::string, PrefixSchedule> schedules = {{"LINEAR", PrefixSchedule::linear},
                                                                  {"EXP", PrefixSchedule::exponential},
                                                                  {"ONES", PrefixSchedule::ones},
                                                                  {"ZEROS", PrefixSchedule::zeros}};
  std::istringstream words(name);
  std::string schedule, number;
  std::getline(words, schedule, '_');
  NamedCase result{schedules.at(schedule), {}};
  for (std::int64_t& each : result.numbers) {
    std::getline(words, number, '_');
    each = std::stoll(number);
  }
  return result;
}

// `previous` [n, N]: guided as `schedule` says, or the first `held` of them held.
model::Continuation continuation_of(const at::Tensor& previous, std::int64_t total, const at::Tensor& weights,
                                    std::int64_t held = 0) {
  at::Tensor target = at::zeros({1, total, previous.size(1)});
  target[0].narrow(0, 0, previous.size(0)).copy_(previous);
  return {target, weights.view({1, total, 1}), (at::arange(total) < held).view({1, total, 1})};
}

struct Continued {
  test::GoldenCase golden;
  at::Tensor previous;
};

Continued read_continued(const std::string& name) {
  return {test::read_case(name),
          model::SafetensorsFile("goldens/continuation/" + name + ".safetensors").tensor("previous")};
}

Continued shortened(const Continued& one) { return {test::shortened(one.golden), one.previous}; }

model::ModelInputs with(const model::ModelInputs& inputs, const model::Continuation& continuation) {
  model::ModelInputs changed = inputs;
  changed.continuation = continuation;
  return changed;
}

model::Continuation guided_by(const Continued& one) {
  const std::int64_t total = one.golden.config.action_horizon;
  return continuation_of(one.previous, total, model::prefix_weights(PrefixSchedule::linear, 3, 10, total));
}

model::Continuation held_by(const Continued& one, std::int64_t held) {
  const std::int64_t total = one.golden.config.action_horizon;
  return continuation_of(one.previous, total, at::zeros({total}), held);
}

// The golden's actions by case, and what `pi0` makes of the same.
void compare_guided(const std::string& name, const model::Execution& execution, double most) {
  const Continued one = read_continued(name);
  const auto pi0 = test::load_case(one.golden, Precision::float32, execution);
  const model::SafetensorsFile expected("goldens/continuation/" + name + ".safetensors");
  const std::int64_t total = one.golden.config.action_horizon;
  std::map<std::int64_t, at::Tensor> unguided;  // by steps
  int compared = 0;
  for (const auto& [key, entry] : expected.entries()) {
    if (!key.starts_with("actions.")) continue;
    INFO(name << " " << key);
    const auto [schedule, numbers] = parse_case(key.substr(8));
    const std::int64_t end = std::min(numbers[1], one.previous.size(0));
    const model::Continuation continuation =
        continuation_of(one.previous, total, model::prefix_weights(schedule, numbers[0], end, total));
    const at::Tensor found =
        pi0->sample_actions(with(one.golden.inputs, continuation), one.golden.noise, numbers[2]).cpu();
    CHECK(test::relative_rms(found, expected.tensor(key)) <= most);
    at::Tensor& plain = unguided[numbers[2]];
    if (!plain.defined()) plain = pi0->sample_actions(one.golden.inputs, one.golden.noise, numbers[2]).cpu();
    CHECK(test::relative_rms(plain, expected.tensor(key)) > 1e-2);
    ++compared;
  }
  CHECK(compared == (name == "tiny_pi05" ? 5 : 1));
}

}  // namespace

TEST_CASE("prefix weights are LeRobot's in every bit", "[model][continuation][golden]") {
  const model::SafetensorsFile expected("goldens/continuation/weights.safetensors");
  CHECK(expected.entries().size() == 28);
  for (const auto& [name, entry] : expected.entries()) {
    INFO(name);
    const auto [schedule, numbers] = parse_case(name);
    CHECK(at::equal(model::prefix_weights(schedule, numbers[0], numbers[1], numbers[2]), expected.tensor(name)));
  }
}

TEST_CASE("guidance weakens and grows again, and never overshoots", "[model][continuation]") {
  CHECK(model::guidance_weight(1.0F, 10) == 10);
  CHECK(model::guidance_weight(1.0F, 4) == 4);
  CHECK(model::guidance_weight(1.0F, 100) == 10);
  CHECK(model::guidance_weight(0.5F, 10) == 2);
  CHECK(model::guidance_weight(0.8F, 10) == Approx(4.25));
  CHECK(model::guidance_weight(0.2F, 10) == Approx(4.25));
  CHECK(model::guidance_weight(0.01F, 100) == 10);
}

TEST_CASE("guided chunks are those of LeRobot's processor around openpi's model", "[model][continuation][golden]") {
  for (const char* name : {"tiny_pi05", "tiny_pi0"}) {
    compare_guided(name, {}, 1e-5);
    compare_guided(name, test::fast(model::fastest_instruction_set()), 1e-5);
    compare_guided(name, test::like_gpu(), 1e-5);
  }
}

TEST_CASE("on a GPU: guided chunks are those of LeRobot's processor around openpi's model", "[model][gpu]") {
  const std::optional<model::Execution> gpu = test::fast_gpu();
  if (!gpu) {
    WARN("no GPU: not run");
    return;
  }
  for (const char* name : {"tiny_pi05", "tiny_pi0"}) compare_guided(name, *gpu, 1e-4);
}

TEST_CASE("held actions are the previous chunk's in every bit, and change the others", "[model][continuation]") {
  for (const char* name : {"tiny_pi05", "tiny_pi0"}) {
    const Continued one = shortened(read_continued(name));
    for (const Precision precision : {Precision::float32, Precision::bfloat16}) {
      const auto pi0 = test::load_case(one.golden, precision);
      const auto& [golden, previous] = one;
      const auto actions = [&](std::int64_t held) {
        return pi0->sample_actions(with(one.golden.inputs, held_by(one, held)), one.golden.noise, 3);
      };
      const at::Tensor plain = pi0->sample_actions(golden.inputs, golden.noise, 3), held = actions(4);
      CHECK(at::equal(held[0].narrow(0, 0, 4), previous.narrow(0, 0, 4)));
      CHECK(test::relative_rms(held.slice(1, 4), plain.slice(1, 4)) > 1e-3);
      CHECK(at::equal(actions(0), plain));
    }
  }
}

TEST_CASE("each sample of a batch continues its own chunk or none", "[model][continuation]") {
  for (const char* name : {"tiny_pi05", "tiny_pi0"}) {
    const Continued one = shortened(read_continued(name));
    const auto& [golden, previous] = one;
    const auto pi0 = test::load_case(golden, Precision::float32);
    std::vector<model::ModelInputs> samples = {golden.inputs, with(golden.inputs, guided_by(one)),
                                               with(golden.inputs, held_by(one, 4)), golden.inputs};
    samples[3].state = -golden.inputs.state;
    const at::Tensor noise = golden.noise.expand({4, -1, -1}).contiguous();
    const at::Tensor together = pi0->sample_actions(model::joined(samples), noise, 3);
    for (std::int64_t i = 0; i < 4; ++i) {
      INFO(name << " " << i);
      const at::Tensor alone = pi0->sample_actions(samples[static_cast<std::size_t>(i)], golden.noise, 3);
      CHECK(test::relative_rms(together.narrow(0, i, 1), alone) <= 1e-5);
    }
  }
}

// Hands back what it is given to record.
class Replayer : public model::WorkRecorder {
 public:
  std::vector<Work> record(const std::vector<Work>& parts) override { return parts; }
};

TEST_CASE("recorded requests continue their own chunk", "[model][continuation][record]") {
  const Continued one = shortened(read_continued("tiny_pi05"));
  const auto& [golden, previous] = one;
  const auto plain = test::load_case(golden, Precision::float32);
  const auto recording = test::load_case(golden, Precision::float32, test::like_gpu(std::make_shared<Replayer>()));
  for (int turn = 0; turn < 3; ++turn) {
    for (const double scale : {1.0, -0.5}) {
      model::Continuation continuation = guided_by(one);
      continuation.target = continuation.target * scale;
      for (const model::ModelInputs& inputs : {golden.inputs, with(golden.inputs, continuation)}) {
        const at::Tensor expected = plain->sample_actions(inputs, golden.noise, 3);
        CHECK(test::relative_rms(recording->sample_actions(inputs, golden.noise, 3), expected) <= 1e-5);
      }
    }
  }
}

TEST_CASE("a continuation of another shape or dtype is refused by name", "[model][continuation]") {
  const Continued one = read_continued("tiny_pi05");
  const auto pi0 = test::load_case(one.golden, Precision::float32);
  const auto refusal = [&](auto&& change) -> std::string {
    model::Continuation bad = guided_by(one);
    change(bad);
    try {
      pi0->sample_actions(with(one.golden.inputs, bad), one.golden.noise, 1);
    } catch (const std::invalid_argument& error) {
      return error.what();
    }
    return "";
  };
  CHECK_THAT(refusal([](auto& bad) { bad.target = bad.target.narrow(1, 0, 3); }), contains_text("continuation target"));
  CHECK_THAT(refusal([](auto& bad) { bad.target = bad.target.to(at::kDouble); }), contains_text("expected float32"));
  CHECK_THAT(refusal([](auto& bad) { bad.weights = at::Tensor(); }), contains_text("continuation weights: missing"));
  CHECK_THAT(refusal([](auto& bad) { bad.held = bad.held.to(at::kFloat); }), contains_text("continuation held"));
}

}  // namespace pi0
