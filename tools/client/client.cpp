// pi0 client: sends a recorded request, or one made from pictures, to a policy server.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "protocol/files.h"
#include "server/spread.h"
#include "tools/client/client_request.h"
#include "tools/client/policy_client.h"
#include "tools/client/watch.h"
#include "tools/common/api_key.h"
#include "tools/common/commands.h"
#include "tools/common/option_checks.h"
#include "tools/common/print.h"
#include "tools/common/stopwatch.h"

namespace pi0::tools {
namespace {

struct ClientOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 8000;
  std::string url;
  std::filesystem::path api_key_file;
  std::filesystem::path tls_ca;
  RequestOptions request;
  int repeats = 1;
  bool watches = false;
  std::filesystem::path output;
};

ServerAccess access_of(const ClientOptions& options) {
  ServerAccess access{
      .url = {.host = options.host, .port = std::to_string(options.port)}, .api_key = {}, .tls_ca = options.tls_ca};
  if (!options.url.empty()) access.url = ServerUrl::parse(options.url);
  if (!options.api_key_file.empty()) access.api_key = read_api_key(options.api_key_file);
  return access;
}

// [A, N], or [B, A, N] of a batch.
void print_actions(const protocol::NdArray& actions) {
  const std::size_t axes = actions.shape.size();
  if (actions.dtype != protocol::DType{'f', 8} || (axes != 2 && axes != 3)) {
    throw std::runtime_error("the answer's actions are " + type_name(actions) +
                             ", expected a float64 array of two or three axes");
  }
  print("actions: {}\n", type_name(actions));
  const std::int64_t samples = axes == 3 ? actions.shape[0] : 1, horizon = actions.shape[axes - 2];
  std::vector<double> row(static_cast<std::size_t>(actions.shape.back()));
  const std::size_t row_bytes = row.size() * sizeof(double);
  for (std::int64_t i = 0; i < samples * horizon; ++i) {
    if (axes == 3 && i % horizon == 0) tools::print("sample {}\n", i / horizon);
    std::memcpy(row.data(), actions.data.data() + static_cast<std::size_t>(i) * row_bytes, row_bytes);
    tools::print("{:4}: {:9.6f}\n", i % horizon, fmt::join(row, " "));
  }
}

void run_client(const ClientOptions& options) {
  const protocol::Dict request = read_request(options.request);
  const ServerAccess access = access_of(options);
  auto client = std::make_unique<PolicyClient>(access);
  check_named_fields(options.request, client->metadata());
  if (options.watches) return watch(std::move(client), access, request);
  std::vector<double> latencies_ms;
  protocol::Dict answer;
  for (int i = 0; i < options.repeats; ++i) {
    Stopwatch watch;
    answer = client->infer(request);
    latencies_ms.push_back(watch.lap() * 1000);
  }
  const protocol::Value* actions = answer.find("actions");
  if (actions == nullptr || !std::holds_alternative<protocol::NdArray>(*actions)) {
    throw std::runtime_error("the answer has no array 'actions'");
  }
  print_actions(std::get<protocol::NdArray>(*actions));
  print("latency: {:.1f} ms median of {}\n", server::spread_of(latencies_ms).median, latencies_ms.size());
  if (!options.output.empty()) protocol::write_message(options.output, answer);
}

void add_server_options(CLI::App& command, ClientOptions& options) {
  CLI::Option* host = command.add_option("--host", options.host, "Host of the server")->capture_default_str();
  CLI::Option* port =
      command.add_option("--port", options.port, "Port of the server")->check(between(0, 65535))->capture_default_str();
  command.add_option("--url", options.url, "Its whole address instead: ws://HOST:PORT/PATH, wss:// for TLS")
      ->type_name("URL")
      ->check(accepted_by(ServerUrl::parse))
      ->excludes(host)
      ->excludes(port);
  command.add_option("--api-key-file", options.api_key_file, "File with the key that the server wants")
      ->check(CLI::ExistingFile);
  command
      .add_option("--tls-ca", options.tls_ca,
                  "Certificate of the authority that signed the server's, PEM; default: those of the system")
      ->check(CLI::ExistingFile);
}

void add_request_options(CLI::App& command, RequestOptions& options) {
  command.add_option("--request", options.recording, "Request as msgpack")->check(CLI::ExistingFile);
  command
      .add_option("--image", options.images,
                  "Picture (PNG, JPEG) of a camera, once for each; without FIELD a DROID robot's exterior camera. "
                  "images/NAME is a camera of ALOHA's")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->option_text("[FIELD=]FILE");
  command.add_option("--wrist-image", options.wrist_image, "Picture of a DROID robot's wrist camera; default: --image")
      ->check(CLI::ExistingFile);
  command.add_option("--joint-position", options.joints, "A DROID robot's seven angles, radians")
      ->expected(7)
      ->default_str("0 -0.6 0 -2.2 0 1.6 0.8");
  command.add_option("--gripper-position", options.gripper, "A DROID robot's: 0 open to 1 closed")->default_str("0");
  command.add_option("--state", options.states, "A field of numbers, once for each")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->option_text("FIELD=NUMBER,...");
  command.add_option("--prompt", options.prompt, "What to do; replaces the request's prompt");
}

}  // namespace

void add_client(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("client", "Send a recorded request or pictures to a server; print action chunk and latencies");
  command->footer(
      "Example:\n"
      "  pi0 client --image table.png --prompt \"put the banana in the green bin\"\n"
      "  pi0 client --url wss://robots.example --api-key-file key --request 000000.request.msgpack --watch\n"
      "  pi0 client --image observation/image=table.png --image observation/wrist_image=wrist.png \\\n"
      "    --state observation/state=0,0,0,0,0,0,0,0 --prompt \"open the drawer\"");
  const auto options = std::make_shared<ClientOptions>();
  add_server_options(*command, *options);
  add_request_options(*command, options->request);
  CLI::Option* repeats = command->add_option("--repeats", options->repeats, "How often to send it")
                             ->check(positive())
                             ->capture_default_str();
  CLI::Option* output = command->add_option("--output", options->output, "Write the last answer as msgpack");
  command
      ->add_flag("--watch", options->watches, "Send it again and again, and print each second's latencies until Ctrl-C")
      ->excludes(repeats)
      ->excludes(output);
  command->callback([options, command] {
    if (command->count("--request") + command->count("--image") == 0) {
      throw CLI::RequiredError("--request or --image");
    }
    run_client(*options);
  });
}

}  // namespace pi0::tools
