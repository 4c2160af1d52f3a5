#include "quant/calibration.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <set>

#include "model/backend.h"
#include "quant/calibration_recorder.h"
#include "support/catch.h"
#include "support/temporary_folder.h"
#include "support/tensor_file.h"
#include "support/tiny_model.h"

namespace pi0 {
namespace {

using model::Precision;
using quant::Calibration;
using quant::CalibrationRecorder;
using quant::ChannelStatistics;
using Tensors = std::map<std::string, at::Tensor>;

constexpr std::int64_t num_steps = 3;
const std::vector<double> wanted = {99, 50, 99.9, 100};

// Keeps the inputs of one linear, call by call.
class InputListener : public model::LinearHook {
 public:
  explicit InputListener(const model::Linear& linear) : linear_(linear) {}
  at::Tensor linear(const at::Tensor& x) override {
    calls.push_back(x.reshape({-1, x.size(-1)}).to(at::kDouble, /*non_blocking=*/false, /*copy=*/true));
    return linear_.backend.linear(linear_, x);
  }
  bool observes() const override { return true; }

  std::vector<at::Tensor> calls;  // [R, In] float64

 private:
  const model::Linear& linear_;
};

class Case {
 public:
  Case(const std::string& name, Precision precision, const model::Execution& execution = {})
      : golden(test::read_case(name)), pi0(test::load_case(golden, precision, execution)) {}

  // Of two requests, whose noise differs.
  at::Tensor run(int request, model::MaskedInputs masked = model::MaskedInputs::keep) const {
    const at::Tensor noise = request == 0 ? golden.noise : golden.noise.flip(1) * 1.25;
    return pi0->sample_actions(golden.inputs, noise, num_steps, {.masked = masked});
  }
  std::vector<model::Linear*> linears() const {
    std::vector<model::Linear*> found;
    for (model::MatmulSite& site : pi0->sites().all()) {
      if (auto* const linear = dynamic_cast<model::Linear*>(&site)) found.push_back(linear);
    }
    return found;
  }

  test::GoldenCase golden;
  std::unique_ptr<model::Pi0> pi0;
};

struct Recorded {
  Tensors tensors;
  std::size_t passes = 0;
  std::size_t foreseen = 0;  // passes, after the first
};

Recorded record(const Case& of, std::int64_t memory_bytes, std::set<model::Component> skip = {}) {
  CalibrationRecorder recorder(of.pi0->sites(), {wanted, num_steps, std::move(skip), memory_bytes});
  Recorded found;
  while (!recorder.is_complete()) {
    for (const int request : {0, 1}) {
      of.run(request);
      recorder.finish_request();
    }
    recorder.finish_pass();
    if (++found.passes == 1) found.foreseen = 1 + recorder.passes_left();
  }
  found.tensors = recorder.tensors();
  return found;
}

constexpr std::int64_t plenty = std::int64_t{1} << 32;

bool all_equal(const Tensors& found, const Tensors& expected) {
  return std::ranges::equal(found, expected, [](const auto& a, const auto& b) {
    return a.first == b.first && at::equal(a.second, b.second);
  });
}

// What at:: finds in the inputs of one site in one step.
void compare_step(const Tensors& found, const model::Linear& linear, std::int64_t step, const at::Tensor& inputs) {
  INFO(linear.path << " step " << step);
  const at::Tensor magnitudes = inputs.abs();
  CHECK(at::equal(found.at(linear.path + ".absmax")[step], magnitudes.amax(0).to(at::kFloat)));
  CHECK(at::allclose(found.at(linear.path + ".mean_square")[step], inputs.square().mean(0).to(at::kFloat), 1e-6, 0));
  const at::Tensor places = at::tensor(wanted, at::kDouble) / 100;
  CHECK(at::allclose(found.at(linear.path + ".percentiles")[step], at::quantile(magnitudes, places, 0).to(at::kFloat),
                     1e-6, 0));
}

void compare_with_listeners(const Case& of, std::int64_t vision_calls) {
  const Recorded found = record(of, plenty);
  CHECK(found.passes == 1);
  std::vector<std::unique_ptr<InputListener>> listeners;
  for (model::Linear* linear : of.linears()) {
    linear->set_hook(listeners.emplace_back(std::make_unique<InputListener>(*linear)).get());
  }
  of.pi0->sites().hooks_changed();
  for (const int request : {0, 1}) of.run(request);
  CHECK(found.tensors.size() == 3 * listeners.size());
  for (std::size_t i = 0; i < listeners.size(); ++i) {
    const model::Linear& linear = *of.linears()[i];
    const std::int64_t steps = quant::steps_of(linear, num_steps);
    const std::vector<at::Tensor>& calls = listeners[i]->calls;
    INFO(linear.path);
    const bool sees_cameras = linear.component == model::Component::vision || linear.path.ends_with("projector.linear");
    REQUIRE(calls.size() == static_cast<std::size_t>(2 * (steps == 1 ? sees_cameras ? vision_calls : 1 : steps)));
    REQUIRE(found.tensors.at(linear.path + ".absmax").size(0) == steps);
    for (std::int64_t step = 0; step < steps; ++step) {
      std::vector<at::Tensor> inputs;
      for (std::size_t call = 0; call < calls.size(); ++call) {
        if (steps == 1 || static_cast<std::int64_t>(call) % steps == step) inputs.push_back(calls[call]);
      }
      compare_step(found.tensors, linear, step, at::cat(inputs));
    }
  }
  for (model::Linear* linear : of.linears()) linear->remove_hook();
  of.pi0->sites().hooks_changed();
}

TEST_CASE("statistics of every site and step are those of the inputs that a listener keeps", "[quant][calibration]") {
  const model::Execution fast = test::fast(model::fastest_instruction_set());
  compare_with_listeners(Case("tiny_pi05", Precision::bfloat16), 3);
  compare_with_listeners(Case("tiny_pi05", Precision::bfloat16, fast), 3);
  compare_with_listeners(Case("tiny_pi05", Precision::float32, fast), 3);
  compare_with_listeners(Case("tiny_pi0", Precision::bfloat16, fast), 3);
}

void check_neutral(const char* name, Precision precision, const model::Execution& execution) {
  const Case of(name, precision, execution);
  const model::Backend& backend = of.pi0->sites().backend();
  INFO(name << " " << backend.name() << " " << backend.instructions());
  const at::Tensor plain = of.run(1);
  {
    CalibrationRecorder recorder(of.pi0->sites(), {wanted, num_steps, {}, plenty});
    CHECK(at::equal(of.run(1), plain));
    CHECK_THROWS_AS(CalibrationRecorder(of.pi0->sites(), {wanted, num_steps, {}, plenty}), std::logic_error);
  }
  CHECK(std::ranges::all_of(of.linears(), [](const auto* linear) { return linear->hook() == nullptr; }));
}

TEST_CASE("recording changes no bit of the actions", "[quant][calibration]") {
  check_neutral("tiny_pi05", Precision::bfloat16, {});
  check_neutral("tiny_pi0", Precision::float32, {});
  for (const model::InstructionSet set : model::instruction_sets()) {
    check_neutral("tiny_pi05", Precision::bfloat16, test::fast(set));
  }
  const model::Execution fastest = test::fast(model::fastest_instruction_set());
  check_neutral("tiny_pi05", Precision::float32, fastest);
  check_neutral("tiny_pi0", Precision::bfloat16, fastest);
}

TEST_CASE("several passes find what one does", "[quant][calibration]") {
  const Case of("tiny_pi05", Precision::bfloat16, test::fast(model::fastest_instruction_set()));
  const Recorded whole = record(of, plenty);
  const Recorded parts = record(of, std::int64_t{5} << 20);
  CHECK(parts.passes > 2);
  CHECK(parts.foreseen == parts.passes);
  CHECK(all_equal(parts.tensors, whole.tensors));
  CHECK_THROWS_WITH(record(of, 100), contains_text("alone take more than the 0 MiB for values"));
  const Recorded some = record(of, plenty, {model::Component::language, model::Component::action_expert});
  CHECK(some.tensors.size() < whole.tensors.size() / 2);
  for (const auto& [name, tensor] : some.tensors) CHECK(at::equal(tensor, whole.tensors.at(name)));
}

TEST_CASE("an input that is not finite is refused by its site", "[quant][calibration]") {
  const Case of("tiny_pi0", Precision::float32);
  CalibrationRecorder recorder(of.pi0->sites(), {wanted, num_steps, {}, plenty});
  of.pi0->sample_actions(of.golden.inputs, of.golden.noise * std::numeric_limits<float>::infinity(), num_steps);
  CHECK_THROWS_WITH(recorder.finish_request(), contains_text("is not finite"));
  of.pi0->sample_actions(of.golden.inputs, of.golden.noise, num_steps - 1);
  CHECK_THROWS_AS(recorder.finish_request(), std::logic_error);
}

std::vector<float> percentiles_of(const at::Tensor& column, const std::vector<double>& percentiles) {
  ChannelStatistics statistics(2);
  const at::Tensor x = at::stack({column, at::zeros_like(column)}, 1);
  for (const at::Tensor& part : x.split(4)) {
    statistics.count(part);
    statistics.keep(part);
  }
  const at::Tensor found = statistics.percentiles(percentiles);
  CHECK(at::equal(found.select(1, 1), at::zeros(found.size(0))));
  const at::Tensor first = found.select(1, 0).contiguous();
  return {first.const_data_ptr<float>(), first.const_data_ptr<float>() + first.numel()};
}

TEST_CASE("percentiles are numpy.percentile's", "[quant][calibration]") {
  // np.percentile(np.abs(x).astype(np.float64), percentiles), rounded to float32, of NumPy 1.26
  const at::Tensor few = at::tensor({0.3F, -7.25F, 1.5F, 2.125F, -0.0078125F, 100.5F, 3.3333F, -3.3333F, 11.0F});
  CHECK(percentiles_of(few, {0, 25, 50, 90, 99, 99.9, 99.99, 100}) ==
        std::vector<float>{0.0078125F, 1.5F, 3.3333001136779785F, 28.899999618530273F, 93.33999633789062F,
                           99.78399658203125F, 100.42839813232422F, 100.5F});
  const at::Tensor shuffled = (at::arange(1000) * 7919).remainder(1000).to(at::kFloat);
  CHECK(percentiles_of(shuffled * 0.1F, {99.9, 37.3, 99.99, 99}) ==
        std::vector<float>{99.80010223388672F, 37.262699127197266F, 99.8900146484375F, 98.9010009765625F});
  // np.uint32 & 0xFFFF0000: the values that bfloat16 has, toward zero
  const at::Tensor cut = (shuffled - 500).view(at::kInt).bitwise_and(~0xFFFF).view(at::kFloat);
  CHECK(percentiles_of(cut.to(at::kBFloat16), {37.3, 99, 99.9, 99.99}) ==
        std::vector<float>{186.6269989013672F, 494.0F, 498.00201416015625F, 499.8002014160156F});
  CHECK(percentiles_of(at::tensor({-3.0F}), {0, 99, 100}) == std::vector<float>{3, 3, 3});
}

nlohmann::ordered_json meta() {
  return {{"version", "0"},      {"config", "tiny"},      {"num_steps", num_steps},
          {"n_observations", 2}, {"percentiles", wanted}, {"skip_components", nlohmann::json::array()}};
}

class CalibrationFile {
 public:
  CalibrationFile(const Tensors& tensors, const nlohmann::ordered_json& meta) {
    std::ofstream stream(path(), std::ios::binary);
    quant::write_calibration(
        [&](const void* data, std::size_t size) {
          stream.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
        },
        tensors, meta);
  }
  std::filesystem::path path() const { return folder_.path() / "calibration.safetensors"; }

 private:
  test::TemporaryFolder folder_;
};

TEST_CASE("a calibration gives a site's largest values", "[quant][calibration]") {
  const Case of("tiny_pi05", Precision::bfloat16);
  const Tensors tensors = record(of, plenty).tensors;
  const CalibrationFile file(tensors, meta());
  const Calibration read(file.path(), of.pi0->sites());
  CHECK(read.meta().at("config") == "tiny");
  CHECK(read.meta().at("n_observations") == 2);
  CHECK(read.meta().at("percentiles") == nlohmann::json(wanted));
  for (const model::Linear* linear : of.linears()) {
    CHECK(at::equal(read.absmax(linear->path), tensors.at(linear->path + ".absmax").amax(0)));
    const at::Tensor percentiles = tensors.at(linear->path + ".percentiles");
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      CHECK(read.percentile(linear->path, wanted[i]) ==
            percentiles.select(1, static_cast<std::int64_t>(i)).max().item<float>());
    }
  }
  CHECK_THROWS_WITH(read.absmax("nowhere"), contains_text("has no statistics of 'nowhere'"));
  CHECK_THROWS_WITH(read.percentile("action_in_proj", 99.99), contains_text("has no percentile 99.99, found ["));
}

TEST_CASE("a calibration of other weights is refused, whatever their precision and layout", "[quant][calibration]") {
  const Case of("tiny_pi05", Precision::bfloat16), wide("tiny_pi05", Precision::float32),
      packed("tiny_pi05", Precision::bfloat16, test::fast(model::instruction_sets().back()));
  nlohmann::ordered_json with_weights = meta();
  with_weights["weights"] = quant::weights_fingerprint(wide.pi0->sites());
  const Tensors tensors = record(of, plenty).tensors;
  const CalibrationFile file(tensors, with_weights), from_elsewhere(tensors, meta());
  const Calibration read(file.path(), of.pi0->sites());
  CHECK_NOTHROW(read.check_weights(of.pi0->sites()));
  CHECK_NOTHROW(read.check_weights(packed.pi0->sites()));
  of.linears().back()->weight().select(0, 0).mul_(1.5);
  CHECK_THROWS_WITH(read.check_weights(of.pi0->sites()), contains_text("was recorded with other weights"));
  CHECK_NOTHROW(Calibration(from_elsewhere.path(), of.pi0->sites()).check_weights(of.pi0->sites()));
}

TEST_CASE("a calibration that is damaged or of another model is refused", "[quant][calibration]") {
  const Case of("tiny_pi05", Precision::bfloat16);
  const Tensors good = record(of, plenty).tensors;
  const auto refusal = [&](const Tensors& tensors, const nlohmann::ordered_json& meta) -> std::string {
    const CalibrationFile file(tensors, meta);
    try {
      const Calibration read(file.path(), of.pi0->sites());
    } catch (const model::CheckpointError& error) {
      CHECK_THAT(error.what(), contains_text("calibration.safetensors: "));
      return error.what();
    }
    return "accepted";
  };
  const auto with = [&](const std::string& name, const at::Tensor& tensor) {
    Tensors tensors = good;
    tensor.defined() ? static_cast<void>(tensors[name] = tensor) : static_cast<void>(tensors.erase(name));
    return refusal(tensors, meta());
  };
  const auto with_meta = [&](const char* key, const nlohmann::json& value) {
    nlohmann::ordered_json changed = meta();
    changed[key] = value;
    return refusal(good, changed);
  };
  REQUIRE(refusal(good, meta()) == "accepted");
  const at::Tensor absmax = good.at("action_in_proj.absmax");
  CHECK_THAT(with("action_in_proj.absmax", {}), contains_text("has no tensor 'action_in_proj.absmax'"));
  CHECK_THAT(with("action_in_proj.absmax", absmax.narrow(0, 1, 2).clone()),
             contains_text("'action_in_proj.absmax' is Float [2, 32], expected Float [3, 32]"));
  CHECK_THAT(with("action_in_proj.absmax", absmax.to(at::kDouble)), contains_text("is Double [3, 32]"));
  CHECK_THAT(with("action_in_proj.absmax", -absmax), contains_text("negative or not finite"));
  CHECK_THAT(with("action_in_proj.mean_square", absmax / 0), contains_text("negative or not finite"));
  CHECK_THAT(with("state_proj.absmax", absmax), contains_text("has a tensor 'state_proj.absmax'"));
  CHECK_THAT(with("action_in_proj.weight", absmax), contains_text("has a tensor 'action_in_proj.weight'"));
  CHECK_THAT(with_meta("num_steps", 0), contains_text("'num_steps' is 0, expected an integer from 1 on"));
  CHECK_THAT(with_meta("num_steps", 4), contains_text("expected Float [4, "));
  CHECK_THAT(with_meta("percentiles", {99, 101}), contains_text("expected a list of numbers from 0 to 100"));
  CHECK_THAT(with_meta("skip_components", {"vision"}), contains_text("vision_tower"));
  CHECK_THAT(refusal(good, {{"config", "tiny"}}), contains_text("metadata 'num_steps' is null"));

  const CalibrationFile file(good, meta());
  std::filesystem::resize_file(file.path(), std::filesystem::file_size(file.path()) - 4);
  CHECK_THROWS_WITH(Calibration(file.path(), of.pi0->sites()), contains_text("truncated"));
  const CalibrationFile whole(good, meta());
  CHECK_THROWS_WITH(Calibration(whole.path(), Case("tiny_pi0", Precision::bfloat16).pi0->sites()),
                    contains_text("is it of another model?"));
}

TEST_CASE("a calibration with a changed byte is read or refused by its name", "[quant][calibration]") {
  const Case of("tiny_pi05", Precision::bfloat16);
  nlohmann::ordered_json head_only = meta();
  head_only["skip_components"] = {"vision", "language", "action_expert"};
  const CalibrationFile file(
      record(of, plenty, {model::Component::vision, model::Component::language, model::Component::action_expert})
          .tensors,
      head_only);
  const std::string good = test::read_all(file.path());
  const std::size_t header_end = good.find("}}") + 2;
  std::size_t refused = 0;
  for (std::size_t at = 0; at < header_end; ++at) {
    // Each byte in one way: an entry's parts come once for every tensor, and so in all ways.
    constexpr std::array changes = {'\x01', '\x10', '\x80'};
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ changes[at % changes.size()]);
    test::write_all(file.path(), bad);
    try {
      const Calibration read(file.path(), of.pi0->sites());
    } catch (const model::CheckpointError& error) {
      ++refused;
      CHECK(std::string(error.what()).starts_with(file.path().string()));
    }
  }
  CHECK(3 * refused > 2 * header_end);  // the rest is free text of the metadata
}

TEST_CASE("a component that was left out is named when it is asked for", "[quant][calibration]") {
  const Case of("tiny_pi05", Precision::bfloat16);
  nlohmann::ordered_json left_out = meta();
  left_out["skip_components"] = {"language"};
  const CalibrationFile file(record(of, plenty, {model::Component::language}).tensors, left_out);
  const Calibration read(file.path(), of.pi0->sites());
  const std::string site = "paligemma_with_expert.paligemma.model.language_model.layers.0.self_attn.q_proj";
  CHECK_THROWS_WITH(read.absmax(site), contains_text("language was left out when it was recorded"));
}

}  // namespace
}  // namespace pi0
