// pi0 client: sends a recorded request, or a DROID observation made from pictures, to a policy server.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <vector>

#include "protocol/files.h"
#include "tools/client/picture.h"
#include "tools/client/policy_client.h"
#include "tools/common/commands.h"
#include "tools/common/option_checks.h"
#include "tools/common/print.h"
#include "tools/common/stopwatch.h"

namespace pi0::tools {
namespace {

struct ClientOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;
  std::filesystem::path request;
  std::filesystem::path image;
  std::filesystem::path wrist_image;
  std::vector<double> joints = {0.0, -0.6, 0.0, -2.2, 0.0, 1.6, 0.8};  // radians, arm above a table
  double gripper = 0.0;
  std::string prompt;
  int repeats = 1;
  std::filesystem::path output;
};

protocol::NdArray float64_array(const std::vector<double>& values) {
  protocol::NdArray array{{'f', 8}, {static_cast<std::int64_t>(values.size())}, {}};
  array.data.resize(values.size() * sizeof(double));
  std::memcpy(array.data.data(), values.data(), array.data.size());
  return array;
}

protocol::Dict droid_request(const ClientOptions& options) {
  protocol::Dict request;
  request.set("observation/exterior_image_1_left", read_picture(options.image));
  request.set("observation/wrist_image_left",
              read_picture(options.wrist_image.empty() ? options.image : options.wrist_image));
  request.set("observation/joint_position", float64_array(options.joints));
  request.set("observation/gripper_position", float64_array({options.gripper}));
  return request;
}

void print_chunk(const protocol::NdArray& actions) {
  if (actions.dtype != protocol::DType{'f', 8} || actions.shape.size() != 2) {
    throw std::runtime_error("the answer's actions are " + type_name(actions) +
                             ", expected a float64 array of two axes");
  }
  print("actions: {}\n", type_name(actions));
  std::vector<double> row(static_cast<std::size_t>(actions.shape[1]));
  const std::size_t row_bytes = row.size() * sizeof(double);
  for (std::int64_t i = 0; i < actions.shape[0]; ++i) {
    std::memcpy(row.data(), actions.data.data() + static_cast<std::size_t>(i) * row_bytes, row_bytes);
    tools::print("{:4}: {:9.6f}\n", i, fmt::join(row, " "));
  }
}

void run_client(const ClientOptions& options) {
  protocol::Dict request = options.request.empty() ? droid_request(options) : protocol::read_message(options.request);
  if (!options.prompt.empty()) request.set("prompt", options.prompt);
  PolicyClient client(options.host, options.port);
  std::vector<double> latencies_ms;
  protocol::Dict answer;
  for (int i = 0; i < options.repeats; ++i) {
    Stopwatch watch;
    answer = client.infer(request);
    latencies_ms.push_back(watch.lap() * 1000);
  }
  const protocol::Value* actions = answer.find("actions");
  if (actions == nullptr || !std::holds_alternative<protocol::NdArray>(*actions)) {
    throw std::runtime_error("the answer has no array 'actions'");
  }
  print_chunk(std::get<protocol::NdArray>(*actions));
  std::sort(latencies_ms.begin(), latencies_ms.end());
  print("latency: {:.1f} ms median of {}\n", latencies_ms[latencies_ms.size() / 2], latencies_ms.size());
  if (!options.output.empty()) protocol::write_message(options.output, answer);
}

}  // namespace

void add_client(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("client", "Send a request file or a picture to a server; print the action chunk and latency");
  command->footer("Example:\n  pi0 client --image table.png --prompt \"put the banana in the green bin\"");
  const auto options = std::make_shared<ClientOptions>();
  command->add_option("--host", options->host, "Host of the server")->capture_default_str();
  command->add_option("--port", options->port, "Port of the server")->check(between(0, 65535))->capture_default_str();
  CLI::Option* request =
      command->add_option("--request", options->request, "Request as msgpack")->check(CLI::ExistingFile);
  CLI::Option* image =
      command->add_option("--image", options->image, "Picture (PNG, JPEG) of a DROID robot's exterior camera")
          ->check(CLI::ExistingFile)
          ->excludes(request);
  command->add_option("--wrist-image", options->wrist_image, "Picture of its wrist camera; default: --image")
      ->check(CLI::ExistingFile)
      ->needs(image);
  command->add_option("--joint-position", options->joints, "Seven angles, radians")
      ->expected(7)
      ->needs(image)
      ->capture_default_str();
  command->add_option("--gripper-position", options->gripper, "0 open to 1 closed")
      ->needs(image)
      ->capture_default_str();
  command->add_option("--prompt", options->prompt, "What to do; replaces the request's prompt");
  command->add_option("--repeats", options->repeats, "How often to send it")->check(positive())->capture_default_str();
  command->add_option("--output", options->output, "Write the last answer as msgpack");
  command->callback([options, command] {
    if (options->request.empty() && options->image.empty()) {
      throw CLI::RequiredError("--request or --image");
    }
    run_client(*options);
  });
}

}  // namespace pi0::tools
