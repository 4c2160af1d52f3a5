#include "tools/serve/server_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <utility>
#include <vector>

#include "model/text_file.h"
#include "server/tls.h"
#include "tools/common/api_key.h"
#include "tools/common/default_checkpoints.h"
#include "tools/common/option_checks.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

const std::string default_record_folder = "policy_records";
const std::vector<std::string> policy_words = {"policy:checkpoint", "policy:default"};

void use_default_checkpoint(ProgramOptions& options) {
  const DefaultCheckpoint& standard = default_checkpoints().at(options.env);
  options.model.config = standard.config;
  options.model.checkpoint_dir = policy::openpi_data_home() / "openpi-assets" / "checkpoints" / standard.folder;
  if (fs::exists(options.model.checkpoint_dir)) return;
  throw std::runtime_error(options.model.checkpoint_dir.string() + ": the default checkpoint of --env " + options.env +
                           " does not exist; download it with 'mkdir -p " +
                           options.model.checkpoint_dir.parent_path().string() +
                           " && gsutil -m cp -r gs://openpi-assets/checkpoints/" + standard.folder + " " +
                           options.model.checkpoint_dir.parent_path().string() + "', or give --config " +
                           standard.config + " and --checkpoint-dir");
}

template <class Number>
void add_limit(CLI::App& app, const std::string& name, Number& value, const std::string& help) {
  app.add_option(name, value, help)->check(positive())->capture_default_str()->group("Limits");
}

void add_seconds(CLI::App& app, const std::string& name, std::chrono::milliseconds& value, const std::string& help,
                 double least = 0.001) {
  app.add_option_function<double>(
         name,
         [&value](double seconds) { value = std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000)); },
         help)
      ->check(between(least, 86400.0))
      ->default_str(std::to_string(value.count() / 1000))
      ->group("Limits");
}

void add_record_options(CLI::App& app, server::RecorderOptions& record) {
  CLI::Option* folder =
      app.add_option("--record", record.folder,
                     "Write every answered request, with its noise, and its answer into this folder (default: " +
                         default_record_folder + "), for pi0 infer --request")
          ->expected(0, 1)
          ->default_str(default_record_folder)
          ->option_text("[DIR]")
          ->group("Recording");
  app.add_flag("--no-record")
      ->description("Do not record (default); openpi's negative form of --record")
      ->excludes(folder)
      ->group(folder->get_group());
  app.add_option_function<double>(
         "--record-limit-gib",
         [&record](double limit) { record.max_folder_bytes = static_cast<std::uint64_t>(limit * (1 << 30)); },
         "Recording stops before the folder, earlier recordings included, exceeds this size")
      ->check(between(1e-6, 1e6))
      ->default_str(std::to_string(record.max_folder_bytes >> 30))
      ->needs(folder)
      ->group(folder->get_group());
}

void add_security_options(CLI::App& app, ProgramOptions& options) {
  const std::string group = "Security";
  app.add_option("--api-key-file", options.api_key_file,
                 "File with the key that clients must send, as openpi's do with api_key=; /healthz needs none")
      ->check(CLI::ExistingFile)
      ->group(group);
  app.add_option("--allow-origin", options.server.allowed_origins,
                 "Site whose pages may connect (https://site), or *; by default no page in a browser may")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group(group);
  app.add_option("--allow-host", options.server.allowed_hosts,
                 "Additional host name that requests may use, for a server bound to the loopback address")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group(group);
  CLI::Option* certificates = app.add_option("--tls-cert", options.server.tls_certificates,
                                             "Certificate chain, PEM: serve wss:// and https:// only")
                                  ->check(CLI::ExistingFile)
                                  ->group(group);
  CLI::Option* key = app.add_option("--tls-key", options.server.tls_key, "Its private key, PEM")
                         ->check(CLI::ExistingFile)
                         ->needs(certificates)
                         ->group(group);
  certificates->needs(key);
}

}  // namespace

void add_program_options(CLI::App& app, ProgramOptions& options) {
  add_place_options(app, options.model);
  app.add_option("--policy.config", options.model.config, "As --config, with policy:checkpoint")
      ->excludes(app.get_option("--config"));
  app.add_option("--policy.dir", options.model.checkpoint_dir, "As --checkpoint-dir")
      ->transform(or_cached())
      ->excludes(app.get_option("--checkpoint-dir"));
  choose(app.add_option("policy", options.policy, "openpi's subcommands"), policy_words);
  std::vector<std::string> environments;
  for (const auto& [name, checkpoint] : default_checkpoints()) environments.push_back(name);
  choose(app.add_option("--env", options.env,
                        "Environment whose default checkpoint is served; upper case works too, as in openpi"),
         environments, Letters::any_case)
      ->capture_default_str();
  add_model_options(app, options.model);
  add_quant_options(app, options.quant);
  CLI::Option* output = app.get_option("--stats-output");
  app.add_flag("--no-statistics", options.quant.no_statistics,
               "Measure nothing: faster, and weights that are kept as codes are freed in full precision")
      ->excludes("--stats-output")
      ->excludes("--split-errors")
      ->group("Quantization");
  app.add_option("--stats-every", options.quant.stats_every,
                 "Measure every Nth request; the others cost one matmul per layer, not two")
      ->check(positive())
      ->capture_default_str()
      ->group(output->get_group());
  app.add_option("--stats-interval", options.stats_interval,
                 "Also write the statistics every so many seconds (SIGUSR1 writes them at once)")
      ->check(between(0.1, 86400.0))
      ->needs(output)
      ->group(output->get_group());
  app.add_option("--gpu", options.gpu, "GPU index, -1 for the CPU; as --device")
      ->check(between(-1, 1024))
      ->excludes(app.get_option("--device"));
  app.add_option("--host", options.server.host, "Address to listen on")->capture_default_str();
  app.add_option("--port", options.server.port, "Port to listen on; 0 picks a free one")
      ->check(between(0, 65535))
      ->capture_default_str();
  app.add_option("--max-batch", options.max_batch,
                 "Answer up to this many waiting requests with one call of the model; the last bits of an "
                 "answer may then differ from those of a single request")
      ->check(positive())
      ->capture_default_str();
  app.add_flag("--list-layers", options.list_layers, "List linears and attentions, then exit");
  app.add_flag("--dry-run", options.dry_run, "Check checkpoint, statistics, tokenizer and options, then exit");
  choose(app.add_option("--log-level", options.log_level, "Least severe level that is logged"),
         {"debug", "info", "warning", "error"})
      ->capture_default_str();
  CLI::Option* log_file =
      app.add_option("--log-file", options.log_file, "Also log to this file")->check(regular_file_or_none());
  app.add_option("--log-file-mib", options.log_file_mib,
                 "Size at which a new file is started; the last three full ones are kept as .1, .2 and .3")
      ->check(between(1, 1 << 20))
      ->needs(log_file)
      ->capture_default_str();
  app.add_flag("--exit-on-failure", options.server.exit_on_failure,
               "Exit with code 1 when the model fails twice in a row and the requests are not the cause; without it "
               "/healthz and /readyz answer 503");
  add_record_options(app, options.record);
  app.add_option("--openpi-dir", options.openpi_dir, "Accepted, not needed");

  add_security_options(app, options);
  add_limit(app, "--max-message-bytes", options.server.max_message_bytes, "Bytes of one request");
  add_limit(app, "--max-connections", options.server.max_connections, "Clients at the same time");
  add_limit(app, "--max-connections-per-address", options.server.max_connections_per_address,
            "Clients of one address, other than this machine's own");
  add_seconds(app, "--handshake-timeout", options.server.handshake_timeout,
              "Seconds that a client may take to connect");
  add_seconds(app, "--end-timeout", options.server.end_timeout,
              "Seconds that clients may take to close when the server ends, after the last answer");
  add_seconds(app, "--drain-seconds", options.server.drain_time,
              "Seconds from the first signal in which clients that are there are served on and new ones are refused; "
              "in the second half each is closed after its next answer",
              0.0);
  add_seconds(app, "--write-timeout", options.server.write_timeout, "Seconds that a client may take to read an answer");
  add_seconds(app, "--idle-timeout", options.server.idle_timeout,
              "Seconds that a client may wait between its requests; 0: no limit", 0.0);
  add_seconds(app, "--message-timeout", options.server.message_timeout,
              "Seconds after which a message must be complete or have brought 4 KiB per second");
  add_limit(app, "--max-requests-ahead", options.server.max_requests_ahead,
            "Requests that one client may send without waiting for answers");
  add_limit(app, "--max-waiting-bytes", options.server.max_waiting_bytes,
            "Bytes of all unanswered requests; beyond it, the client that holds most is disconnected");
  add_seconds(app, "--keepalive", options.server.keepalive_interval,
              "Seconds between pings, and until a client that does not answer them is dropped");
  add_limit(app, "--max-array-bytes", options.server.decode_limits.max_array_bytes, "Of one array");
  add_limit(app, "--max-observations", options.max_observations, "Observations in the field batch of one request");
  add_limit(app, "--max-string-bytes", options.server.decode_limits.max_string_bytes, "Of one text");
  add_limit(app, "--max-prompt-bytes", options.model.limits.prompt_bytes, "Of a prompt");
  add_limit(app, "--max-image-bytes", options.model.limits.image_bytes,
            "Of an image that is sent as PNG or JPEG: height x width x 3");
  add_limit(app, "--max-nesting", options.server.decode_limits.max_depth, "Maps inside each other");
}

void settle(ProgramOptions& options, const CLI::App& app) {
  if (app.count("--gpu") > 0) {
    options.model.device = options.gpu < 0 ? "cpu" : "cuda:" + std::to_string(options.gpu);
  }
  if (!options.server.tls_certificates.empty()) {  // before the weights are read
    server::tls_context(options.server.tls_certificates, options.server.tls_key);
  }
  if (!options.api_key_file.empty()) options.server.api_key = read_api_key(options.api_key_file);
  if (app.count("--record") > 0 && options.record.folder.empty()) {
    throw CLI::ValidationError("--record", "the folder has no name");
  }
  if (options.record.folder == "True" || options.record.folder == "False") {
    throw CLI::ValidationError("--record", "found '" + options.record.folder.string() +
                                               "', expected a folder, or nothing; --no-record turns it off");
  }
  if (std::ranges::find(policy_words, options.record.folder.string()) !=
      policy_words.end()) {  // --record is a flag in openpi
    options.policy = std::exchange(options.record.folder, default_record_folder).string();
  }
  const bool named = !options.model.config.empty() || !options.model.config_file.empty() ||
                     !options.model.checkpoint_dir.empty() || options.model.random_weights;
  if (options.policy == "policy:checkpoint" && (options.model.config.empty() || options.model.checkpoint_dir.empty())) {
    throw CLI::ValidationError("policy:checkpoint", "needs --policy.config and --policy.dir");
  }
  if (options.policy == "policy:default" && named) {
    throw CLI::ValidationError("policy:default", "cannot be given with a policy or checkpoint");
  }
  if (!named) use_default_checkpoint(options);
}

}  // namespace pi0::tools
