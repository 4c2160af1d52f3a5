// How a scene's episodes went, read from what its simulator left: its output, a CSV or JSON file, or its videos.
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace pi0::tools {

// At most one of the first five says how success is found, and at most one of the last two a score. {scene} in any of
// them is the scene's name. Patterns are RE2's and are tried on one line after the other, which also ends at a carriage
// return. Files lie in the scene's output folder unless their path is absolute.
struct SuccessRules {
  std::string regex;           // the last match counts: successes and episodes, or a rate, or (with the next) successes
  std::string episodes_regex;  // beside `regex`: the last match's group is the number of episodes
  std::string episode_regex;   // each match is an episode; its group is whether it succeeded
  std::string csv;             // FILE:COLUMN, a row per episode
  std::string json;            // FILE:KEY, a rate or a list of episodes; KEY may be a path (a.b), through lists too
  std::string videos;          // each video is an episode, one whose path in the folder matches succeeded
  std::string score_regex;     // each match is an episode; its group is its score, a number
  std::string score_csv;       // FILE:COLUMN, a row per episode

  bool has_success() const;  // any of the first six
};

// pi0-quant's, for when there is no other.
inline constexpr const char* original_success_regex = R"([Ss]cene\s+{scene}[:\s]+(\d+)/(\d+))";

// What a scene left.
struct SceneOutput {
  std::string scene;
  std::string log;               // bytes in any encoding, of any length
  std::filesystem::path folder;  // the scene's output folder, with its videos
  long episodes = 0;             // that were asked for
  bool is_shortened = false;     // the log's middle is left out
};

// Nothing of what was not found.
struct Outcomes {
  std::optional<long> succeeded, episodes;
  std::vector<bool> by_episode = {};  // in order; empty when the simulator tells only totals
  std::vector<double> scores = {};    // in order, one per episode
};

class SuccessError : public std::runtime_error {
  using runtime_error::runtime_error;
};

// Throws std::invalid_argument for a pattern that is none or has a wrong number of groups, a FILE:COLUMN or FILE:KEY
// without a colon, and rules that exclude each other.
void check_rules(const SuccessRules& rules);

// Throws SuccessError when what was found makes no sense: a group that is no number, more successes than episodes, a
// rate that no number of successes gives, a file without the column or key.
Outcomes read_outcomes(const SuccessRules& rules, const SceneOutput& output);

// What the rules looked for, for messages: "--success-regex '...'".
std::string description(const SuccessRules& rules);

// The rules that are set, by their options' names. Reading throws model::JsonFileError.
nlohmann::ordered_json to_json(const SuccessRules& rules);
SuccessRules success_rules_from(const nlohmann::ordered_json& content, const std::string& source);

}  // namespace pi0::tools
