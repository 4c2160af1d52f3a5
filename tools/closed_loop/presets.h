// Simulators that `pi0 closed-loop --preset` knows: how each is run, and what it needs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "model/policy/policy_config.h"
#include "model/policy/robot_config.h"
#include "tools/closed_loop/success_rules.h"

namespace pi0::tools {

struct Preset {
  // What must lie in the simulator's folder.
  struct Needed {
    std::string path;
    std::string advice;         // how to get it
    std::string variable = {};  // when it is set, the simulator looks elsewhere
  };

  // What the simulator's client sends and how many numbers it takes from each action.
  struct Client {
    std::string camera_map = {};  // as RobotConfig's
    std::vector<std::string> cameras;
    std::vector<policy::RobotConfig::StateField> state;
    bool sends_prompt = true;
    std::int64_t action_size = 0;
    bool moves_to_positions = false;  // of DROID's joints; most of openpi's policies for DROID answer velocities
  };

  std::string name;
  std::string about;  // for --help

  std::string folder;                // what --simulator-dir names
  std::string folder_variable = {};  // an environment variable that names it too
  std::string own_folder = {};       // below share/pi0: it comes with the programs
  std::vector<Needed> needed;

  std::string command;                    // as --eval-command; {python}, {simulator_dir} and {launchers} as well
  std::string environment = {};           // of {python}, as the shell sets it before a command
  std::vector<std::string> imports = {};  // modules that {python} must have
  std::string program = {};               // that the command needs in $PATH instead
  std::string advice;                     // how to get the modules or the program
  std::string question = {};              // what an import wants that reads stdin
  bool runs_in_folder = false;            // the command, else where pi0 runs
  std::string videos = {};                // where in the folder it writes videos; empty: into {output_dir}
  std::uint16_t port = 0;                 // the only one that its client can reach; 0: any
  std::vector<std::string> scenes;        // that run without --scenes
  std::vector<std::string> other_scenes = {};
  bool has_only_these_scenes = true;
  SuccessRules success = {};

  Client client;
  std::vector<std::string> policies;  // openpi's names of those trained for it, or files
};

const std::vector<Preset>& presets();
const Preset& preset_named(const std::string& name);  // one of presets()

// Where the simulator lies: `given`, else where the environment or the installation has it. Throws
// std::invalid_argument that says what is missing there.
std::filesystem::path simulator_folder(const Preset& preset, const std::filesystem::path& given);

// The command with {python}, {simulator_dir} and {launchers} replaced. Throws std::invalid_argument when the launchers
// are not where the installation or the build puts them.
std::string simulator_command(const Preset& preset, const std::filesystem::path& folder, const std::string& python);

// Runs `python` to import the modules, or looks for the program. Throws std::invalid_argument that names what is
// missing and how to get it.
void check_installation(const Preset& preset, const std::string& python);

void check_scenes(const Preset& preset, const std::vector<std::string>& scenes);  // throws std::invalid_argument

// Throws std::invalid_argument when the policy cannot answer the client's requests, or its actions are of another kind.
// `is_openpis`: its name is openpi's, which says what its actions are.
void check_policy(const Preset& preset, const policy::PolicyConfig& policy, bool is_openpis, bool has_default_prompt);

}  // namespace pi0::tools
