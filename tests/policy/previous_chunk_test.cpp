// The fields of real-time chunking, and what the model is given of them.
#include "model/policy/previous_chunk.h"

#include <limits>

#include "model/policy/policy.h"
#include "policy/policy_fixtures.h"
#include "support/catch.h"

namespace pi0::policy {
namespace {

using protocol::Value;

protocol::NdArray eighths(std::int64_t count, std::int64_t size) {
  std::vector<double> values(static_cast<std::size_t>(count * size));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i) / 8;
  return array_of('f', {count, size}, values);
}

// Four actions of two numbers, the first of which will be carried out.
protocol::Dict four_actions(const std::vector<protocol::Dict::Entry>& more = {}) {
  protocol::Dict request;
  request.set("prev_chunk", eighths(4, 2));
  request.set("inference_delay", std::int64_t{1});
  for (const auto& [key, value] : more) request.set(key, value);
  return request;
}

PreviousChunk read_chunk(const protocol::Dict& request) { return read_previous_chunk(request, 2, 6).value(); }

std::string chunk_refusal(const protocol::Dict& request) {
  return error_of<RequestError>([&] { read_chunk(request); });
}

std::string chunk_refusal(const std::string& key, const Value& value) {
  return chunk_refusal(four_actions({{key, value}}));
}

Policy policy_with(
    PolicyConfig config, SampleActions sample_actions,
    std::function<void(const std::string&)> warn = [](const std::string&) {}) {
  const auto dims = static_cast<std::size_t>(config.action_dim);
  FieldStats field{std::vector<double>(dims, 0.1), std::vector<double>(dims, 0.7), std::vector<double>(dims, -0.9),
                   std::vector<double>(dims, 1.3)};
  return {std::move(config),
          {field, field, "test"},
          PromptTokenizer::from_file("goldens/tiny_tokenizer.model", 512),
          std::move(sample_actions),
          {.default_prompt = "wave", .warn = std::move(warn)}};
}

at::Tensor unasked_model(const model::ModelInputs&, const at::Tensor&, std::int64_t) {
  throw std::logic_error("this test needs no model");
}

protocol::Dict request_for(const std::string& policy) {
  if (policy.find("aloha") != std::string::npos) return aloha_request({"cam_high"});
  return policy.find("libero") != std::string::npos ? libero_request() : droid_request();
}

// An answer's actions from `first` on.
protocol::NdArray actions_from(const protocol::Dict& answer, std::int64_t first) {
  auto actions = std::get<protocol::NdArray>(*answer.find("actions"));
  const std::size_t action = actions.data.size() / static_cast<std::size_t>(actions.shape[0]);
  actions.data.erase(actions.data.begin(), actions.data.begin() + first * static_cast<std::ptrdiff_t>(action));
  actions.shape[0] -= first;
  return actions;
}

protocol::Dict asked_with(protocol::Dict request, protocol::NdArray previous, std::int64_t delay) {
  request.set("prev_chunk", std::move(previous));
  request.set("inference_delay", delay);
  return request;
}

// The policy's own chunk comes back from the robot: it must be the model's again, without padding.
void compare_round_trip(const PolicyConfig& config, const protocol::Dict& request) {
  const Policy policy = policy_with(config, unasked_model);
  at::manual_seed(5);
  const at::Tensor chunk = at::rand({1, config.action_horizon, config.action_dim}) * 2 - 1;
  const protocol::Dict answer = policy.finish(chunk, policy.prepare(request).state);
  const model::ModelInputs inputs = policy.prepare(asked_with(request, actions_from(answer, 3), 2));
  const std::int64_t size = config.robot.action_size;
  const at::Tensor target = inputs.continuation.target;
  REQUIRE(target.sizes() == chunk.sizes());
  CHECK(at::allclose(target.slice(1, 0, -3).slice(2, 0, size), chunk.slice(1, 3).slice(2, 0, size), 0.0, 1e-6));
  CHECK(target.slice(2, size).count_nonzero().item<std::int64_t>() == 0);
  CHECK(target.slice(1, -3).count_nonzero().item<std::int64_t>() == 0);
}

}  // namespace

TEST_CASE("a previous chunk that is far from any action is warned of", "[policy][continuation]") {
  std::vector<std::string> warnings;
  const Policy policy = policy_with(policy_config("pi05_droid"), unasked_model,
                                    [&](const std::string& warning) { warnings.push_back(warning); });
  for (const double value : {1.0, 100.0}) {
    protocol::Dict request = droid_request();
    request.set("prev_chunk", array_of('f', {1, 8}, std::vector<double>(8, value)));
    request.set("inference_delay", std::int64_t{0});
    policy.prepare(request);
  }
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0], contains_text("prev_chunk: found an action of "));
}

TEST_CASE("a request without a previous chunk continues nothing", "[policy][continuation]") {
  REQUIRE_FALSE(read_previous_chunk(droid_request(), 8, 15).has_value());
  REQUIRE_FALSE(
      policy_with(policy_config("pi05_droid"), unasked_model).prepare(droid_request()).continuation.is_defined());
}

TEST_CASE("fields of a previous chunk have LeRobot's defaults and limits", "[policy][continuation]") {
  const PreviousChunk plain = read_chunk(four_actions());
  CHECK(plain.actions == std::vector<double>{0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875});
  CHECK(plain.count == 4);
  CHECK(plain.delay == 1);
  CHECK(plain.horizon == 4);  // of 10
  CHECK(plain.schedule == model::PrefixSchedule::linear);
  CHECK_FALSE(plain.freeze);

  const auto numpy_two = array_of<std::int64_t>('i', {}, {2});
  const PreviousChunk full = read_chunk(four_actions({{"inference_delay", numpy_two},
                                                      {"execution_horizon", std::int64_t{3}},
                                                      {"prefix_attention_schedule", std::string("EXP")},
                                                      {"rtc", std::string("freeze")}}));
  CHECK(full.delay == 2);
  CHECK(full.horizon == 3);
  CHECK(full.schedule == model::PrefixSchedule::exponential);
  CHECK(full.freeze);
  CHECK(read_chunk(four_actions({{"prefix_attention_schedule", std::string("ONES")}})).schedule ==
        model::PrefixSchedule::ones);
  CHECK(read_chunk(four_actions({{"prefix_attention_schedule", std::string("ZEROS")}})).schedule ==
        model::PrefixSchedule::zeros);
  CHECK(read_chunk(four_actions({{"execution_horizon", std::int64_t{50}}})).horizon == 4);
  CHECK(read_chunk(four_actions({{"inference_delay", std::int64_t{0}}, {"execution_horizon", std::int64_t{1}}}))
            .horizon == 1);

  protocol::Dict slow;  // a delay above the default horizon is guided whole
  slow.set("prev_chunk", eighths(40, 2));
  slow.set("inference_delay", std::int64_t{12});
  CHECK(read_previous_chunk(slow, 2, 50)->horizon == 12);
}

TEST_CASE("bad fields of a previous chunk are refused by name", "[policy][continuation]") {
  const std::string expected = ", expected an array [n, 2] of numbers, n from 1 to 6";
  CHECK(chunk_refusal("prev_chunk", eighths(0, 2)) == "prev_chunk: found float64 array [0, 2]" + expected);
  CHECK(chunk_refusal("prev_chunk", eighths(7, 2)) == "prev_chunk: found float64 array [7, 2]" + expected);
  CHECK(chunk_refusal("prev_chunk", eighths(4, 3)) == "prev_chunk: found float64 array [4, 3]" + expected);
  CHECK(chunk_refusal("prev_chunk", array_of('f', {8}, std::vector<double>(8))) ==
        "prev_chunk: found float64 array [8]" + expected);
  CHECK(chunk_refusal("prev_chunk", std::monostate{}) == "prev_chunk: found nil" + expected);
  CHECK(chunk_refusal("prev_chunk", array_of('U', {4, 2}, std::vector<std::uint32_t>(8))) ==
        "prev_chunk: found U1 array [4, 2]" + expected);
  std::vector<double> values(8);
  values[3] = std::numeric_limits<double>::quiet_NaN();
  CHECK(chunk_refusal("prev_chunk", array_of('f', {4, 2}, values)) ==
        "prev_chunk: value 3 is nan, expected finite numbers");

  const std::string delays = ", expected an integer from 0 to 4, the actions of prev_chunk";
  CHECK(chunk_refusal("inference_delay", std::int64_t{5}) == "inference_delay: found 5" + delays);
  CHECK(chunk_refusal("inference_delay", std::int64_t{-1}) == "inference_delay: found -1" + delays);
  CHECK(chunk_refusal("inference_delay", 2.0) == "inference_delay: found float" + delays);
  CHECK(chunk_refusal("inference_delay", true) == "inference_delay: found bool" + delays);
  CHECK(chunk_refusal("inference_delay", array_of('f', {}, std::vector<double>{2})) ==
        "inference_delay: found float64 array []" + delays);
  CHECK(chunk_refusal("inference_delay", array_of('i', {1}, std::vector<std::int64_t>{2})) ==
        "inference_delay: found int64 array [1]" + delays);
  CHECK(chunk_refusal(without(four_actions(), "inference_delay")) ==
        "inference_delay: missing; expected an integer from 0 to 4, the actions of prev_chunk");

  CHECK(chunk_refusal("execution_horizon", std::int64_t{0}) ==
        "execution_horizon: found 0, expected an integer, at least 1 as inference_delay");
  CHECK(chunk_refusal(four_actions({{"inference_delay", std::int64_t{3}}, {"execution_horizon", std::int64_t{2}}})) ==
        "execution_horizon: found 2, expected an integer, at least 3 as inference_delay");
  CHECK(chunk_refusal("execution_horizon", std::string("4")) ==
        "execution_horizon: found str, expected an integer, at least 1 as inference_delay");
  CHECK(chunk_refusal("prefix_attention_schedule", std::string("linear")) ==
        "prefix_attention_schedule: found 'linear', expected one of LINEAR, EXP, ONES, ZEROS");
  CHECK(chunk_refusal("rtc", std::int64_t{1}) == "rtc: found int, expected one of guided, freeze");

  for (const std::string_view field : previous_chunk_fields) {
    if (field == "prev_chunk") continue;
    protocol::Dict alone;
    alone.set(std::string(field), std::int64_t{1});
    CHECK(chunk_refusal(alone) == "prev_chunk: missing; expected an array [n, 2] of numbers, n from 1 to 6");
  }
}

TEST_CASE("every policy's own actions come back to the model's chunk", "[policy][continuation]") {
  for (const std::string& name : policy_names()) {
    INFO(name);
    PolicyConfig config = policy_config(name);
    compare_round_trip(config, request_for(name));
    for (const auto form : {Normalization::lerobot_quantile, Normalization::lerobot_z_score}) {
      config.normalization = form;
      compare_round_trip(config, request_for(name));
    }
  }
}

TEST_CASE("relative actions are continued relative to the state of now", "[policy][continuation]") {
  const PolicyConfig config = policy_config("pi05_droid_jointpos_polaris");  // seven joints relative, a gripper not
  REQUIRE(config.delta_action_mask.at(6));
  const Policy policy = policy_with(config, unasked_model);
  protocol::Dict moved = droid_request();
  moved.set("observation/joint_position", array_of<double>('f', {7}, {0.6, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7}));
  const protocol::NdArray actions =
      actions_from(policy.finish(at::zeros({1, 15, 32}), policy.prepare(droid_request()).state), 0);
  const at::Tensor before = policy.prepare(asked_with(droid_request(), actions, 1)).continuation.target;
  const at::Tensor after = policy.prepare(asked_with(moved, actions, 1)).continuation.target;
  const at::Tensor shift = (after - before)[0];
  CHECK(at::allclose(shift.select(1, 0), at::full({15}, -0.5 * 2 / 2.2), 1e-4, 1e-6));  // of percentiles -0.9 and 1.3
  CHECK(at::allclose(shift.slice(1, 1), at::zeros({15, 31}), 0.0, 1e-6));
}

TEST_CASE("guidance and freezing say which actions are guided or held", "[policy][continuation]") {
  const Policy policy = policy_with(policy_config("pi05_droid"), unasked_model);
  protocol::Dict request = asked_with(droid_request(), eighths(5, 8), 2);
  const model::Continuation guided = policy.prepare(request).continuation;
  CHECK(at::allclose(guided.weights.flatten().slice(0, 0, 5), at::tensor({1.0F, 1.0F, 0.75F, 0.5F, 0.25F})));
  CHECK(guided.weights.slice(1, 5).count_nonzero().item<std::int64_t>() == 0);
  CHECK_FALSE(guided.held.any().item<bool>());

  request.set("rtc", std::string("freeze"));
  const model::Continuation frozen = policy.prepare(request).continuation;
  CHECK(frozen.weights.count_nonzero().item<std::int64_t>() == 0);
  CHECK(at::equal(frozen.held.flatten(), at::arange(15) < 2));
  CHECK(at::equal(frozen.target, guided.target));
}

TEST_CASE("actions that no model can hold are refused", "[policy][continuation]") {
  const Policy policy = policy_with(policy_config("pi05_droid"), unasked_model);
  std::vector<double> values(16, 0.5);
  values[9] = 1e300;
  const auto previous = array_of('f', {2, 8}, values);
  CHECK_THAT(error_of<RequestError>([&] { policy.prepare(asked_with(droid_request(), previous, 1)); }),
             contains_text("prev_chunk: found actions that are not finite when normalised"));
}

TEST_CASE("requests with and without a previous chunk share a call", "[policy][continuation]") {
  std::vector<model::ModelInputs> calls;
  Policy policy = policy_with(policy_config("pi05_droid"),
                              [&](const model::ModelInputs& in, const at::Tensor& noise, std::int64_t) {
                                calls.push_back(in);
                                return noise;
                              });
  const std::vector<protocol::Dict> requests = {droid_request(), asked_with(droid_request(), eighths(5, 8), 2),
                                                asked_with(droid_request(), eighths(5, 7), 2)};
  const std::vector<Reply> replies = policy.infer_together(requests);
  CHECK_FALSE(replies[0].error);
  CHECK_FALSE(replies[1].error);
  CHECK(replies[2].error);  // seven numbers of eight
  REQUIRE(calls.size() == 1);
  const model::Continuation& both = calls[0].continuation;
  CHECK(both.target.sizes() == at::IntArrayRef{2, 15, 32});
  CHECK(both.weights[0].count_nonzero().item<std::int64_t>() == 0);
  CHECK(both.weights[1].count_nonzero().item<std::int64_t>() == 5);
}

TEST_CASE("a server decodes the fields of a previous chunk", "[policy][continuation]") {
  const std::vector<std::string> fields = request_fields(robot_config("droid"));
  for (const std::string_view field : previous_chunk_fields) {
    CHECK(std::ranges::find(fields, field) != fields.end());
  }
}

}  // namespace pi0::policy
