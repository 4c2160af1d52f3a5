#include "model/policy/policy.h"

#include <ATen/CPUGeneratorImpl.h>

#include <limits>

#include "model/safetensors.h"
#include "policy/policy_fixtures.h"
#include "protocol/openpi_messages.h"
#include "support/catch.h"

namespace pi0::policy {
namespace {

// What case.json of goldens/policies and goldens/policies_more names, with a model that answers
// `sample_actions`.
Policy golden_policy(const std::string& config, const std::filesystem::path& folder, PolicyOptions options,
                     SampleActions sample_actions) {
  const PolicyConfig policy = policy_config(config);
  return {policy, read_norm_stats(norm_stats_file("goldens" / folder, policy.asset_id)),
          PromptTokenizer::from_file("goldens/tiny_tokenizer.model", 512), std::move(sample_actions),
          std::move(options)};
}

PolicyOptions with_default_prompt(const nlohmann::json& prompt) {
  PolicyOptions options;
  if (!prompt.is_null()) options.default_prompt = prompt.get<std::string>();
  return options;
}

at::Tensor no_model(const model::ModelInputs&, const at::Tensor&, std::int64_t) {
  throw std::logic_error("this test needs no model");
}

// Noise is a radius, up to 5.8, times the cosine of an angle up to 2 pi, whose last bit is 4.8e-7. Another CPU's
// logarithm and cosine move it by so much.
constexpr double noise_tolerance = 5.8 * 4.8e-7;

// Every folder with a recorded request and what the model saw of it.
std::vector<std::string> golden_folders() {
  std::vector<std::string> folders;
  for (const std::string group : {"policies", "policies_more"}) {
    for (const auto& entry : std::filesystem::directory_iterator("goldens/" + group)) {
      if (!std::filesystem::exists(entry.path() / "model_inputs.safetensors")) continue;
      folders.push_back(group + "/" + entry.path().filename().string());
    }
  }
  return folders;
}

Policy polaris_policy(SampleActions sample_actions, PolicyOptions options = {}) {
  return golden_policy("pi05_droid_jointpos_polaris", "policies/pi05_droid_jointpos_polaris", std::move(options),
                       std::move(sample_actions));
}

at::Tensor constant_chunk(const model::ModelInputs&, const at::Tensor& noise, std::int64_t) {
  return at::full_like(noise, 0.5);
}

}  // namespace

TEST_CASE("prepare gives the model what openpi gives it", "[policy][golden]") {
  const std::vector<std::string> cameras = {"base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"};
  REQUIRE(golden_folders().size() == 16);
  for (const std::string& folder : golden_folders()) {
    INFO(folder);
    const nlohmann::json about = golden_json(folder + "/case.json");
    const Policy policy =
        golden_policy(about["config"], folder, with_default_prompt(about["default_prompt"]), no_model);
    const model::SafetensorsFile expected("goldens/" + folder + "/model_inputs.safetensors");
    const model::ModelInputs inputs = policy.prepare(golden_message(folder + "/request.msgpack"));

    REQUIRE(inputs.images.size() == cameras.size());
    for (std::size_t i = 0; i < cameras.size(); ++i) {
      INFO(cameras[i]);
      const at::Tensor image = model::image_to_input(inputs.images[i]);
      REQUIRE(at::equal(inputs.image_masks[i], expected.tensor("image_mask." + cameras[i])));
      if (inputs.image_masks[i].item<bool>()) {
        const at::Tensor levels = expected.tensor("image." + cameras[i]);  // [1, 224, 224, 3]
        REQUIRE(at::equal(image, (levels.to(at::kFloat) / 255 * 2 - 1).permute({0, 3, 1, 2})));
      } else {
        REQUIRE(at::equal(image, at::full({1, 3, 224, 224}, -1.0f)));
      }
    }
    REQUIRE(inputs.state.scalar_type() == at::kDouble);
    // The one function on the way that is not exact everywhere: NumPy's arcsin, of ALOHA's grippers.
    const double tolerance = policy.config().robot.adapt_to_pi ? 1e-14 : 0.0;
    REQUIRE(at::allclose(inputs.state, expected.tensor("state"), 0.0, tolerance));
    REQUIRE(inputs.tokens.scalar_type() == at::kLong);
    REQUIRE(at::equal(inputs.tokens, expected.tensor("tokens")));
    REQUIRE(at::equal(inputs.token_mask, expected.tensor("token_mask")));
  }
}

TEST_CASE("infer turns the reference model's chunk into openpi's answer, in every bit", "[policy][golden]") {
  int compared = 0;
  for (const std::string& folder : golden_folders()) {
    const std::filesystem::path chunk_file = "goldens/" + folder + "/chunk.safetensors";
    if (!std::filesystem::exists(chunk_file)) continue;  // the shipped ones hold none
    ++compared;
    INFO(folder);
    const nlohmann::json about = golden_json(folder + "/case.json");
    const at::Tensor chunk = model::SafetensorsFile(chunk_file).tensor("actions");
    Policy policy = golden_policy(about["config"], folder, with_default_prompt(about["default_prompt"]),
                                  [&](const model::ModelInputs&, const at::Tensor&, std::int64_t) { return chunk; });
    const protocol::Dict answer = policy.infer(golden_message(folder + "/request.msgpack"));
    const protocol::Dict expected = golden_message(folder + "/response.msgpack");

    REQUIRE(answer.entries().size() == 2);
    REQUIRE(answer.entries()[0].first == "actions");
    REQUIRE(answer.entries()[1].first == "policy_timing");
    protocol::Dict without_timing = without(answer, "policy_timing");
    REQUIRE(protocol::encode(without_timing) == protocol::encode(expected));
  }
  REQUIRE(compared == 12);
}

TEST_CASE("a seed's noise is what the seeded reference drew", "[policy][golden]") {
  const std::string folder = "policies_more/seeded_droid";
  const nlohmann::json about = golden_json(folder + "/case.json");
  std::vector<at::Tensor> drawn;
  PolicyOptions options;
  options.seed = about["seed"];
  Policy policy = golden_policy(about["config"], folder, options,
                                [&](const model::ModelInputs&, const at::Tensor& noise, std::int64_t) {
                                  drawn.push_back(noise);
                                  return noise;
                                });
  for (int i = 0; i < 3; ++i) {
    policy.infer(golden_message(folder + "/request.msgpack"));
    REQUIRE_THROWS_AS(policy.infer({}), RequestError);  // draws nothing, as in openpi
  }
  const at::Tensor expected = model::SafetensorsFile("goldens/" + folder + "/noise.safetensors").tensor("noise");
  REQUIRE(at::allclose(at::cat(drawn), expected, 0.0, noise_tolerance));
}

TEST_CASE("every policy answers a valid request with openpi's shape, and names bad fields", "[policy]") {
  for (const std::string& name : policy_names()) {
    INFO(name);
    const PolicyConfig config = policy_config(name);
    const auto dims = static_cast<std::size_t>(config.action_dim);
    const FieldStats field{std::vector<double>(dims, 0.1), std::vector<double>(dims, 2.0),
                           std::vector<double>(dims, -1.0), std::vector<double>(dims, 1.0)};
    Policy policy(config, {field, field, "test"}, PromptTokenizer::from_file("goldens/tiny_tokenizer.model", 512),
                  constant_chunk, {.default_prompt = "wave"});
    const bool aloha = name.find("aloha") != std::string::npos;
    const bool libero = name.find("libero") != std::string::npos;
    const protocol::Dict request = aloha    ? aloha_request({"cam_high", "cam_left_wrist"})
                                   : libero ? libero_request()
                                            : droid_request();
    const protocol::Dict answer = policy.infer(request);
    const auto& actions = std::get<protocol::NdArray>(*answer.find("actions"));
    REQUIRE(actions.dtype == protocol::DType{'f', 8});
    const std::int64_t size = aloha ? 14 : libero ? 7 : 8;
    REQUIRE(actions.shape == std::vector<std::int64_t>{config.action_horizon, size});

    for (const auto& [key, value] : request.entries()) {
      if (key == "prompt") continue;
      INFO(key);
      const auto refusal = [&](const protocol::Dict& bad) {
        return error_of<RequestError>([&] { policy.infer(bad); });
      };
      REQUIRE_THAT(refusal(without(request, key)), contains_text(key + ": missing"));
      for (const protocol::Value& wrong : {protocol::Value(std::string("x")), protocol::Value(std::monostate{}),
                                           protocol::Value(array_of('f', {2, 2, 2, 2}, std::vector<float>(16))),
                                           protocol::Value(array_of('f', {5}, std::vector<double>(5))),
                                           protocol::Value(array_of('U', {1}, std::vector<std::uint32_t>(1)))}) {
        protocol::Dict bad = request;
        bad.set(key, wrong);
        REQUIRE_THAT(refusal(bad), contains_text(key + ": found"));
      }
    }
  }
}

TEST_CASE("infer gives the model the request's noise", "[policy]") {
  at::Tensor seen_noise;
  std::int64_t seen_steps = 0;
  Policy policy = polaris_policy(
      [&](const model::ModelInputs&, const at::Tensor& noise, std::int64_t num_steps) {
        seen_noise = noise;
        seen_steps = num_steps;
        return noise;
      },
      {.num_steps = 4});
  protocol::Dict request = droid_request();
  std::vector<float> noise(15 * 32);
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<float>(i);
  request.set("noise", array_of('f', {15, 32}, noise));
  const protocol::Dict answer = policy.infer(request);
  REQUIRE(seen_steps == 4);
  REQUIRE(at::equal(seen_noise, at::arange(15 * 32, at::kFloat).view({1, 15, 32})));
  const auto& timing = std::get<protocol::Dict>(*answer.find("policy_timing"));
  REQUIRE(std::get<double>(*timing.find("infer_ms")) >= 0.0);
}

TEST_CASE("infer draws torch's noise for a seed, anew for every request", "[policy]") {
  std::vector<at::Tensor> drawn;
  Policy policy = polaris_policy(
      [&](const model::ModelInputs&, const at::Tensor& noise, std::int64_t) {
        drawn.push_back(noise);
        return noise;
      },
      {.seed = 7});
  policy.infer(droid_request());
  policy.infer(droid_request());
  // torch.manual_seed(7); torch.normal(mean=0.0, std=1.0, size=(1, 15, 32))[0, 0, :3]
  const at::Tensor first = at::tensor({-0.8201345205307007, 0.39563116431236267, 0.8989084959030151}, at::kFloat);
  REQUIRE(at::allclose(drawn[0].flatten().slice(0, 0, 3), first, 0.0, noise_tolerance));
  REQUIRE_FALSE(at::equal(drawn[0], drawn[1]));
}

TEST_CASE("the noise that infer hands out gives the answer again", "[policy]") {
  const auto answer_with_noise = [](const model::ModelInputs&, const at::Tensor& noise, std::int64_t) { return noise; };
  Policy policy = polaris_policy(answer_with_noise, {.seed = 7});
  protocol::NdArray used;
  const protocol::Dict answer = policy.infer(droid_request(), &used);
  REQUIRE(used.dtype == protocol::DType{'f', 4});
  REQUIRE(used.shape == std::vector<std::int64_t>{15, 32});

  protocol::Dict again = droid_request();
  again.set("noise", used);
  protocol::NdArray its_own;
  const protocol::Dict same = policy.infer(again, &its_own);
  REQUIRE(its_own.data == used.data);
  REQUIRE(protocol::encode(protocol::without_timing(same)) == protocol::encode(protocol::without_timing(answer)));
}

TEST_CASE("a refused request draws no noise", "[policy]") {
  const auto second_draw = [](bool refused_between) {
    Policy policy = polaris_policy(constant_chunk, {.seed = 7});
    policy.infer(droid_request());
    if (refused_between) {
      REQUIRE_THROWS_AS(policy.infer(without(droid_request(), "prompt")), RequestError);
    }
    protocol::NdArray used;
    policy.infer(droid_request(), &used);
    return used.data;
  };
  REQUIRE(second_draw(true) == second_draw(false));
}

// A model whose actions tell of every input of their own sample, and of no other.
at::Tensor telling_chunk(const model::ModelInputs& in, const at::Tensor& noise, std::int64_t) {
  at::Tensor sum = (in.tokens * in.token_mask).sum(1) + in.image_masks[2] * 1000;  // [B]
  for (const at::Tensor& image : in.images) {
    sum = sum + model::image_to_input(image).select(1, 2).select(1, 100).select(1, 7);
  }
  return noise + (sum.to(at::kFloat) / 1000).view({-1, 1, 1}) + in.state.to(at::kFloat).unsqueeze(1);
}

// DROID requests that differ in everything: their pictures, state, prompt; the last brings noise.
std::vector<protocol::Dict> different_requests() {
  std::vector<protocol::Dict> requests;
  for (const std::string prompt : {"wave", "put the banana in the green bin", "stop", "wave"}) {
    const auto i = static_cast<std::uint8_t>(requests.size());
    protocol::Dict request = droid_request();
    request.set("prompt", prompt);
    request.set("observation/wrist_image_left",
                array_of('u', {224, 224, 3}, std::vector<std::uint8_t>(224 * 224 * 3, 40 * i)));
    request.set("observation/gripper_position", array_of<double>('f', {1}, {0.1 * i}));
    requests.push_back(request);
  }
  requests.back().set("noise", array_of('f', {15, 32}, std::vector<float>(15 * 32, 0.25F)));
  return requests;
}

std::vector<std::uint8_t> bytes_of(const protocol::Dict& answer) {
  return protocol::encode(protocol::without_timing(answer));
}

std::string error_of_reply(const Reply& reply) {
  return error_of<std::exception>([&] { std::rethrow_exception(reply.error); });
}

TEST_CASE("requests together have the noise and the answers that they have one by one", "[policy]") {
  std::vector<protocol::Dict> requests = different_requests();
  requests.insert(requests.begin() + 1, without(droid_request(), "prompt"));  // draws no noise
  requests.insert(requests.begin() + 3, droid_request());
  requests[3].set("noise", std::string("x"));

  Policy alone = polaris_policy(telling_chunk, {.seed = 7});
  std::vector<std::int64_t> calls;  // their batch sizes
  Policy policy = polaris_policy(
      [&](const model::ModelInputs& inputs, const at::Tensor& noise, std::int64_t steps) {
        calls.push_back(noise.size(0));
        return telling_chunk(inputs, noise, steps);
      },
      {.seed = 7});
  const std::vector<Reply> replies = policy.infer_together(requests);
  REQUIRE(calls == std::vector<std::int64_t>{4});
  REQUIRE(replies.size() == 6);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    INFO(i);
    protocol::NdArray noise;
    protocol::Dict answer;
    const std::string error = error_of<std::exception>([&] { answer = alone.infer(requests[i], &noise); });
    REQUIRE(error.empty() == !replies[i].error);
    if (replies[i].error) {
      REQUIRE(error_of_reply(replies[i]) == error);
      continue;
    }
    REQUIRE(replies[i].noise.shape == std::vector<std::int64_t>{15, 32});
    REQUIRE(replies[i].noise.data == noise.data);
    REQUIRE(bytes_of(replies[i].answer) == bytes_of(answer));
    const auto& timing = std::get<protocol::Dict>(*replies[i].answer.find("policy_timing"));
    REQUIRE(std::get<double>(*timing.find("infer_ms")) >= 0.0);
  }
  REQUIRE(bytes_of(replies[0].answer) != bytes_of(replies[2].answer));
  REQUIRE(policy.infer_together({}).empty());
}

TEST_CASE("a batch is answered as its requests are alone, or refused as a whole", "[policy]") {
  std::vector<std::int64_t> calls;  // their batch sizes
  Policy policy = polaris_policy([&](const model::ModelInputs& inputs, const at::Tensor& noise, std::int64_t steps) {
    calls.push_back(noise.size(0));
    return telling_chunk(inputs, noise, steps);
  });
  Policy alone = polaris_policy(telling_chunk);
  std::vector<protocol::Dict> requests = different_requests();
  const std::size_t count = requests.size();
  const std::vector<Reply> replies = policy.infer_batch(requests);
  REQUIRE(replies.size() == count);
  for (std::size_t i = 0; i < count; ++i) REQUIRE(bytes_of(replies[i].answer) == bytes_of(alone.infer(requests[i])));

  const std::string missing = "observation/joint_position";
  requests[1] = without(requests[1], missing);
  requests[2].set("noise", std::string("x"));
  for (const Reply& reply : policy.infer_batch(requests)) {
    REQUIRE_THAT(error_of_reply(reply), contains_text("batch[1]: " + missing + ": missing; expected"));
  }
  REQUIRE(calls == std::vector<std::int64_t>{static_cast<std::int64_t>(count)});
}

TEST_CASE("a failure of the model is the error of a whole batch", "[policy]") {
  std::vector<protocol::Dict> requests = different_requests();
  std::vector<float> huge(15 * 32, 0.0F);
  huge[7] = 1000;
  requests[1].set("noise", array_of('f', {15, 32}, huge));
  Policy policy = polaris_policy([](const model::ModelInputs&, const at::Tensor& noise, std::int64_t) {
    return at::where(noise > 100, std::numeric_limits<float>::infinity(), noise);
  });
  for (const Reply& reply : policy.infer_batch(requests)) {
    REQUIRE(error_of_reply(reply) == "the model's actions are not finite and are not sent");
  }
}

TEST_CASE("requests share a call of the model where what it skips is the same", "[policy]") {
  std::vector<std::vector<std::string>> calls;  // the prompts' lengths and third masks of each
  const auto model = [&](const model::ModelInputs& inputs, const at::Tensor& noise, std::int64_t steps) {
    std::vector<std::string>& call = calls.emplace_back();
    for (std::int64_t i = 0; i < noise.size(0); ++i) {
      call.push_back(std::to_string(inputs.token_mask[i].sum().item<std::int64_t>()) +
                     (inputs.image_masks[2][i].item<bool>() ? " seen" : " masked"));
    }
    return telling_chunk(inputs, noise, steps);
  };
  const auto aloha = [&](model::MaskedInputs masked) {
    const PolicyConfig config = policy_config("pi0_aloha_sim");
    const FieldStats field{std::vector<double>(32, 0.1), std::vector<double>(32, 2.0), std::vector<double>(32, -1.0),
                           std::vector<double>(32, 1.0)};
    return Policy(config, {field, field, "test"}, PromptTokenizer::from_file("goldens/tiny_tokenizer.model", 512),
                  model, {.seed = 7, .masked = masked});
  };
  std::vector<protocol::Dict> requests;
  for (const std::string prompt : {"wave", "put it down", "wave", "wave"}) {
    requests.push_back(requests.size() == 3 ? aloha_request({"cam_high", "cam_right_wrist"})
                                            : aloha_request({"cam_high"}));
    requests.back().set("prompt", prompt);
  }
  std::vector<std::vector<Reply>> replies;
  for (const auto masked : {model::MaskedInputs::keep, model::MaskedInputs::skip}) {
    Policy policy = aloha(masked);
    replies.push_back(policy.infer_together(requests));
  }
  REQUIRE(calls.size() == 4);
  REQUIRE(calls[0].size() == 4);
  REQUIRE(calls[1] == std::vector<std::string>{calls[0][0], calls[0][2]});
  REQUIRE(calls[2] == std::vector<std::string>{calls[0][1]});
  REQUIRE(calls[3] == std::vector<std::string>{calls[0][3]});
  REQUIRE_THAT(calls[0][2], contains_text("masked"));
  REQUIRE_THAT(calls[0][3], contains_text("seen"));
  for (std::size_t i = 0; i < 4; ++i) {
    REQUIRE(bytes_of(replies[0][i].answer) == bytes_of(replies[1][i].answer));
  }
}

TEST_CASE("an observer of calls separates measured requests and learns which were answered", "[policy]") {
  std::vector<protocol::Dict> requests = different_requests();
  requests.push_back(droid_request());
  requests.insert(requests.begin(), protocol::Dict{});
  std::vector<float> huge(15 * 32, 0.0F);
  huge[7] = 1000;
  requests[3].set("noise", array_of('f', {15, 32}, huge));
  const bool model_fails = GENERATE(false, true);
  Policy policy = polaris_policy([&](const model::ModelInputs&, const at::Tensor& noise, std::int64_t) {
    if (model_fails && noise.size(0) == 3) throw std::runtime_error("the model failed");
    return at::where(noise > 100, std::numeric_limits<float>::infinity(), noise);
  });
  std::vector<std::pair<bool, std::vector<bool>>>
      seen;  // of each call: whether it is measured, and which requests were answered
  CallObserver observer;
  observer.measured = {true, false, true, false, false, true};
  observer.run = [&](bool measured, const auto& call) { seen.emplace_back(measured, call()); };
  const std::vector<Reply> replies = policy.infer_together(requests, observer);

  REQUIRE(seen.size() == 2);
  REQUIRE_FALSE(seen[0].first);
  REQUIRE(seen[0].second ==
          (model_fails ? std::vector<bool>{false, false, false} : std::vector<bool>{true, false, true}));
  REQUIRE(seen[1].first);
  REQUIRE(seen[1].second == std::vector<bool>{true, true});
  REQUIRE_THAT(error_of_reply(replies[0]), contains_text("missing"));
  REQUIRE_THAT(error_of_reply(replies[3]), contains_text(model_fails ? "the model failed" : "not finite"));
  for (const std::size_t i : {1, 4}) {
    REQUIRE((replies[i].error != nullptr) == model_fails);
  }
  for (const std::size_t i : {2, 5}) REQUIRE_FALSE(replies[i].error);
}

TEST_CASE("a model that answers another number of samples answers none", "[policy]") {
  Policy policy = polaris_policy(
      [](const model::ModelInputs&, const at::Tensor& noise, std::int64_t) { return noise.slice(0, 0, 1); });
  for (const Reply& reply : policy.infer_together(different_requests())) {
    REQUIRE_THAT(error_of_reply(reply), contains_text("another number of samples"));
  }
}

TEST_CASE("joined pictures keep the memory order that decides the model's convolution", "[policy]") {
  std::vector<at::MemoryFormat> formats;
  Policy policy = polaris_policy([&](const model::ModelInputs& inputs, const at::Tensor& noise, std::int64_t) {
    formats.push_back(model::image_to_input(inputs.images[0]).suggest_memory_format());
    return noise;
  });
  policy.infer(droid_request());
  policy.infer_together(different_requests());
  REQUIRE(formats == std::vector<at::MemoryFormat>(2, at::MemoryFormat::ChannelsLast));
}

TEST_CASE("infer refuses noise of another shape, dtype or value", "[policy]") {
  Policy policy = polaris_policy(constant_chunk);
  const auto refusal = [&](protocol::Value noise) {
    protocol::Dict request = droid_request();
    request.set("noise", std::move(noise));
    return error_of<RequestError>([&] { policy.infer(request); });
  };
  std::vector<float> values(15 * 32, 0.0f);
  REQUIRE(refusal(array_of('f', {15, 32}, values)).empty());
  REQUIRE_THAT(refusal(array_of('f', {32, 15}, values)),
               contains_text("noise: found float32 array [32, 15], expected float32 array [15, 32]"));
  REQUIRE_THAT(refusal(array_of('f', {15, 32}, std::vector<double>(15 * 32))),
               contains_text("noise: found float64 array"));
  REQUIRE_THAT(refusal(std::string("x")), contains_text("noise: found str"));
  values[3] = std::numeric_limits<float>::infinity();
  REQUIRE_THAT(refusal(array_of('f', {15, 32}, values)), contains_text("noise: found values"));
}

TEST_CASE("the request's prompt comes before the option, the option before the config", "[policy]") {
  const auto tokens = [](const Policy& policy, const protocol::Dict& request) {
    return policy.prepare(request).tokens;
  };
  const auto say = [](const std::string& prompt) {
    protocol::Dict request = droid_request();
    request.set("prompt", prompt);
    return request;
  };
  const protocol::Dict silent = without(droid_request(), "prompt");
  const Policy plain = polaris_policy(no_model);
  const Policy with_option = polaris_policy(no_model, {.default_prompt = "option"});
  REQUIRE(at::equal(tokens(with_option, silent), tokens(plain, say("option"))));
  REQUIRE(at::equal(tokens(with_option, say("request")), tokens(plain, say("request"))));

  PolicyConfig config = plain.config();
  config.default_prompt = "config";
  const auto folder = std::filesystem::path("goldens/policies/pi05_droid_jointpos_polaris");
  const auto of_config = [&](PolicyOptions options) {
    return Policy(config, read_norm_stats(norm_stats_file(folder, "droid")),
                  PromptTokenizer::from_file(find_tokenizer(folder), 512), no_model, std::move(options));
  };
  REQUIRE(at::equal(tokens(of_config({}), silent), tokens(plain, say("config"))));
  REQUIRE(at::equal(tokens(of_config({.default_prompt = "option"}), silent), tokens(plain, say("option"))));
  REQUIRE_THAT(error_of<RequestError>([&] { plain.prepare(silent); }), contains_text("Prompt is required"));
}

TEST_CASE("images of floats out of range are refused, or wrap around where that is allowed", "[policy]") {
  protocol::Dict request = droid_request();
  request.set("observation/wrist_image_left", array_of('f', {4, 6, 3}, std::vector<float>(72, 128.0F)));
  REQUIRE_THAT(error_of<RequestError>([&] { polaris_policy(no_model).prepare(request); }),
               contains_text("observation/wrist_image_left: found the level 128.0"));
  REQUIRE_NOTHROW(polaris_policy(no_model, {.allow_image_wrap = true}).prepare(request));
}

TEST_CASE("an observer sees the normalised state of each request that can be read", "[policy]") {
  std::vector<std::vector<double>> seen;
  CallObserver observer;
  observer.saw_state = [&](std::span<const double> state) { seen.emplace_back(state.begin(), state.end()); };
  Policy policy = polaris_policy(constant_chunk);
  const std::vector<protocol::Dict> requests = {droid_request(), protocol::Dict(), droid_request()};
  policy.infer_together(requests, observer);
  REQUIRE(seen.size() == 2);
  const at::Tensor state = policy.prepare(droid_request()).state;
  REQUIRE(at::equal(at::tensor(seen[1], at::kDouble), state[0]));
}

TEST_CASE("a cut prompt is reported", "[policy]") {
  std::vector<std::string> warnings;
  PolicyOptions options;
  options.warn = [&](const std::string& text) { warnings.push_back(text); };
  const Policy policy = polaris_policy(no_model, options);
  policy.prepare(droid_request());
  REQUIRE(warnings.empty());
  protocol::Dict request = droid_request();
  request.set("prompt", std::string(2000, 'x'));
  policy.prepare(request);
  REQUIRE(warnings.size() == 1);
  REQUIRE_THAT(warnings[0], contains_text("to 200 tokens"));
}

TEST_CASE("actions that are not finite are no answer", "[policy]") {
  const Policy policy = polaris_policy(no_model);
  const at::Tensor state = at::zeros({1, 32}, at::kDouble);
  at::Tensor chunk = at::zeros({1, 15, 32}, at::kFloat);
  chunk[0][3][8] = std::numeric_limits<float>::quiet_NaN();  // an action that DROID has not
  REQUIRE_NOTHROW(policy.finish(chunk, state));
  chunk[0][3][7] = std::numeric_limits<float>::infinity();
  REQUIRE_THROWS_WITH(policy.finish(chunk, state), contains_text("not finite"));
  REQUIRE_THROWS_WITH(policy.finish(chunk[0], state), contains_text("[1, action_horizon"));
}

TEST_CASE("a picture that cannot be fitted is refused by camera", "[policy]") {
  protocol::Dict request = droid_request();
  request.set("observation/wrist_image_left", array_of('u', {1000, 1, 3}, std::vector<std::uint8_t>(3000)));
  const Policy policy = polaris_policy(no_model);
  REQUIRE_THAT(error_of<RequestError>([&] { policy.prepare(request); }),
               contains_text("left_wrist_0_rgb: an image of 1000 x 1 pixels"));
}

}  // namespace pi0::policy
