#include "server/server_options.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

#include "model/text_file.h"
#include "server/tls.h"
#include "tools/option_checks.h"

namespace pi0::server {
namespace {

namespace fs = std::filesystem;

struct DefaultCheckpoint {
  const char* config;
  const char* folder;  // below openpi-assets/checkpoints
};

// openpi's scripts/serve_policy.py DEFAULT_CHECKPOINT
const std::map<std::string, DefaultCheckpoint> default_checkpoints = {
    {"aloha", {"pi05_aloha", "pi05_base"}},
    {"aloha_sim", {"pi0_aloha_sim", "pi0_aloha_sim"}},
    {"droid", {"pi05_droid", "pi05_droid"}},
    {"libero", {"pi05_libero", "pi05_libero"}},
};

const std::string default_record_folder = "policy_records";
const std::vector<std::string> policy_words = {"policy:checkpoint", "policy:default"};

void use_default_checkpoint(ProgramOptions& options) {
  const DefaultCheckpoint& standard = default_checkpoints.at(options.env);
  options.model.config = standard.config;
  options.model.checkpoint_dir = policy::openpi_data_home() / "openpi-assets" / "checkpoints" / standard.folder;
  if (fs::exists(options.model.checkpoint_dir)) return;
  throw std::runtime_error(
      options.model.checkpoint_dir.string() + ": the default checkpoint of --env " + options.env + " is not there; " +
      tools::how_to_get(std::string("gs://openpi-assets/checkpoints/") + standard.folder, standard.config) +
      " and --config " + standard.config + ", or make that folder a link to it");
}

template <class Number>
void add_limit(CLI::App& app, const std::string& name, Number& value, const std::string& help) {
  app.add_option(name, value, help)->check(tools::positive())->capture_default_str()->group("Limits");
}

void add_seconds(CLI::App& app, const std::string& name, std::chrono::milliseconds& value, const std::string& help,
                 double least = 0.001) {
  app.add_option_function<double>(
         name,
         [&value](double seconds) { value = std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000)); },
         help)
      ->check(tools::between(least, 86400.0))
      ->default_str(std::to_string(value.count() / 1000))
      ->group("Limits");
}

void add_record_options(CLI::App& app, RecorderOptions& record) {
  CLI::Option* folder =
      app.add_option("--record", record.folder,
                     "Write every answered request, with its noise, and its answer into this folder (" +
                         default_record_folder + " if none is named), for pi0 infer --request")
          ->expected(0, 1)
          ->default_str(default_record_folder)
          ->option_text("[DIR]")
          ->group("Recording");
  app.add_flag("--no-record")
      ->description("Do not (default); openpi's other form of --record")
      ->excludes(folder)
      ->group(folder->get_group());
  app.add_option_function<double>(
         "--record-limit-gib",
         [&record](double limit) { record.max_folder_bytes = static_cast<std::uint64_t>(limit * (1 << 30)); },
         "Recording ends before the folder's recordings, older ones too, take more than this")
      ->check(tools::between(1e-6, 1e6))
      ->default_str(std::to_string(record.max_folder_bytes >> 30))
      ->needs(folder)
      ->group(folder->get_group());
}

void add_security_options(CLI::App& app, ProgramOptions& options) {
  const std::string group = "Security";
  app.add_option("--api-key-file", options.api_key_file,
                 "File with a key that clients must bring, as openpi's do with api_key=; /healthz is open")
      ->check(CLI::ExistingFile)
      ->group(group);
  app.add_option("--allow-origin", options.server.allowed_origins,
                 "Site whose pages may connect, as https://site, or *; by default a browser's page may not, robots may")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group(group);
  app.add_option("--allow-host", options.server.allowed_hosts,
                 "Name that requests may call a server by which is bound to the loopback, beside localhost")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group(group);
  CLI::Option* certificates = app.add_option("--tls-cert", options.server.tls_certificates,
                                             "Chain of certificates, PEM: serve wss:// and https:// only")
                                  ->check(CLI::ExistingFile)
                                  ->group(group);
  CLI::Option* key = app.add_option("--tls-key", options.server.tls_key, "Its private key, PEM")
                         ->check(CLI::ExistingFile)
                         ->needs(certificates)
                         ->group(group);
  certificates->needs(key);
}

// The file's one line.
std::string read_api_key(const fs::path& file) {
  std::string key = model::read_file(file);
  while (key.ends_with('\n') || key.ends_with('\r')) key.pop_back();
  const bool is_plain = std::ranges::all_of(key, [](unsigned char c) { return c > 0x20 && c < 0x7F; });
  if (!key.empty() && is_plain) return key;
  throw std::runtime_error(file.string() + ": found " +
                           (key.empty() ? "nothing" : "blanks, control characters or non-ASCII characters") +
                           ", expected an API key on one line");
}

}  // namespace

void add_program_options(CLI::App& app, ProgramOptions& options) {
  tools::add_place_options(app, options.model);
  app.add_option("--policy.config", options.model.config, "As --config, with policy:checkpoint")
      ->excludes(app.get_option("--config"));
  app.add_option("--policy.dir", options.model.checkpoint_dir, "As --checkpoint-dir")
      ->transform(tools::or_cached())
      ->excludes(app.get_option("--checkpoint-dir"));
  tools::choose(app.add_option("policy", options.policy, "As openpi has them"), policy_words);
  std::vector<std::string> environments;
  for (const auto& [name, checkpoint] : default_checkpoints) environments.push_back(name);
  tools::choose(app.add_option("--env", options.env,
                               "Environment whose default checkpoint is served; in capitals too, as openpi has them"),
                environments, tools::Letters::any_case)
      ->capture_default_str();
  tools::add_model_options(app, options.model);
  tools::add_quant_options(app, options.quant);
  CLI::Option* output = app.get_option("--stats-output");
  app.add_option("--stats-every", options.quant.stats_every,
                 "Measure every Nth request; the others cost one matmul per layer, not two")
      ->check(tools::positive())
      ->capture_default_str()
      ->group(output->get_group());
  app.add_option("--stats-interval", options.stats_interval,
                 "Also write the statistics every so many seconds (SIGUSR1 writes them at once)")
      ->check(tools::between(0.1, 86400.0))
      ->needs(output)
      ->group(output->get_group());
  app.add_option("--gpu", options.gpu, "GPU index, -1 for the CPU; as --device")
      ->check(tools::between(-1, 1024))
      ->excludes(app.get_option("--device"));
  app.add_option("--host", options.server.host, "Address to listen on")->capture_default_str();
  app.add_option("--port", options.server.port, "Port to listen on; 0 picks a free one")
      ->check(tools::between(0, 65535))
      ->capture_default_str();
  app.add_option("--max-batch", options.max_batch,
                 "Answer up to so many requests that wait with one call of the model; the last bits "
                 "of an answer may then depend on its company")
      ->check(tools::positive())
      ->capture_default_str();
  app.add_flag("--list-layers", options.list_layers, "List linears and attentions, then exit");
  app.add_flag("--dry-run", options.dry_run, "Check checkpoint, statistics, tokenizer and options, then exit");
  tools::choose(app.add_option("--log-level", options.log_level, "The least that is logged"),
                {"debug", "info", "warning", "error"})
      ->capture_default_str();
  CLI::Option* log_file =
      app.add_option("--log-file", options.log_file, "Also log to this file")->check(tools::regular_file_or_none());
  app.add_option("--log-file-mib", options.log_file_mib,
                 "A new file is begun at this size; three full ones are kept beside it, as .1, .2 and .3")
      ->check(tools::between(1, 1 << 20))
      ->needs(log_file)
      ->capture_default_str();
  app.add_flag(
      "--exit-on-failure", options.server.exit_on_failure,
      "End, with exit code 1, when the model has failed twice in a row by no request's fault; without it /healthz "
      "and /readyz say so");
  add_record_options(app, options.record);
  app.add_option("--openpi-dir", options.openpi_dir, "Accepted and not needed");

  add_security_options(app, options);
  add_limit(app, "--max-message-bytes", options.server.max_message_bytes, "Of one request");
  add_limit(app, "--max-connections", options.server.max_connections, "Of clients, at once");
  add_limit(app, "--max-connections-per-address", options.server.max_connections_per_address,
            "Of one address that is not this machine's own");
  add_seconds(app, "--handshake-timeout", options.server.handshake_timeout, "Seconds a client may take to connect");
  add_seconds(app, "--end-timeout", options.server.end_timeout,
              "Seconds clients may take to close when the server ends, after the request in hand");
  add_seconds(app, "--write-timeout", options.server.write_timeout, "Seconds a client may take to read an answer");
  add_seconds(app, "--idle-timeout", options.server.idle_timeout,
              "Seconds a client may wait between its requests; 0: as long as it likes", 0.0);
  add_seconds(app, "--message-timeout", options.server.message_timeout,
              "Seconds after which a message that has begun must have ended or brought 4 KiB for each of them");
  add_limit(app, "--max-requests-ahead", options.server.max_requests_ahead,
            "Of one client that does not wait for its answers");
  add_limit(app, "--max-waiting-bytes", options.server.max_waiting_bytes,
            "Of all clients' requests that are not answered yet; beyond it who holds most gives way");
  add_seconds(app, "--keepalive", options.server.keepalive_interval,
              "Seconds between pings, and until a client that does not answer them is dropped");
  add_limit(app, "--max-array-bytes", options.server.decode_limits.max_array_bytes, "Of one array");
  add_limit(app, "--max-string-bytes", options.server.decode_limits.max_string_bytes, "Of one text");
  add_limit(app, "--max-prompt-bytes", options.model.max_prompt_bytes, "Of a prompt");
  add_limit(app, "--max-nesting", options.server.decode_limits.max_depth, "Maps inside each other");
}

void settle(ProgramOptions& options, const CLI::App& app) {
  if (app.count("--gpu") > 0) {
    options.model.device = options.gpu < 0 ? "cpu" : "cuda:" + std::to_string(options.gpu);
  }
  if (!options.server.tls_certificates.empty()) {  // before the weights are read
    tls_context(options.server.tls_certificates, options.server.tls_key);
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

}  // namespace pi0::server
