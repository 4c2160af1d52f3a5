#include "tools/closed_loop/success_rules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

#include "model/json_fields.h"
#include "model/text_file.h"
#include "tools/closed_loop/videos.h"
#include "tools/common/csv.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The rules and their options.
const std::vector<std::pair<std::string SuccessRules::*, const char*>> rule_options = {
    {&SuccessRules::regex, "--success-regex"},         {&SuccessRules::episodes_regex, "--episodes-regex"},
    {&SuccessRules::episode_regex, "--episode-regex"}, {&SuccessRules::csv, "--success-csv"},
    {&SuccessRules::json, "--success-json"},           {&SuccessRules::videos, "--success-videos"},
    {&SuccessRules::score_regex, "--score-regex"},     {&SuccessRules::score_csv, "--score-csv"},
};

[[noreturn]] void refuse_rule(const char* option, const std::string& rule, const std::string& what) {
  throw std::invalid_argument(fmt::format("{} '{}': {}", option, rule, what));
}

std::string with_scene(std::string text, const std::string& scene) {
  const std::string name = "{scene}";
  for (std::size_t at = 0; (at = text.find(name, at)) != std::string::npos; at += scene.size()) {
    text.replace(at, name.size(), scene);
  }
  return text;
}

RE2 compiled(const std::string& pattern, const std::string& scene) {
  RE2::Options options(RE2::Latin1);  // bytes: a log may hold anything
  options.set_log_errors(false);
  return {with_scene(pattern, RE2::QuoteMeta(scene)), options};
}

void check_pattern(const char* option, const std::string& pattern, int least_groups, int most_groups,
                   const char* expected) {
  if (pattern.empty()) return;
  const RE2 regex = compiled(pattern, "scene");
  if (!regex.ok()) {
    refuse_rule(option, pattern, "is no regular expression of RE2's syntax: " + regex.error());
  }
  const int groups = regex.NumberOfCapturingGroups();
  if (groups < least_groups || groups > most_groups) {
    refuse_rule(option, pattern,
                fmt::format("found {} group{}, expected {}", groups, groups == 1 ? "" : "s", expected));
  }
}

// FILE:COLUMN or FILE:KEY.
struct Place {
  std::string file, key;
};

Place parse_place(const char* option, const std::string& text, const char* key) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == text.size()) {
    refuse_rule(option, text, fmt::format("expected FILE:{}", key));
  }
  return {text.substr(0, colon), text.substr(colon + 1)};
}

// Calls `use` with the groups of each line that the pattern matches, and whether a '%' follows the first one. A group
// that takes no part in a match is empty.
template <class Use>
void each_match(const std::string& log, const RE2& regex, Use use) {
  std::array<re2::StringPiece, 3> found;  // the match and up to two groups
  const int wanted = 1 + regex.NumberOfCapturingGroups();
  for (std::size_t begin = 0; begin < log.size();) {
    const std::size_t end = std::min(log.find_first_of("\r\n", begin), log.size());
    const re2::StringPiece line(log.data() + begin, end - begin);
    if (regex.Match(line, 0, line.size(), RE2::UNANCHORED, found.data(), wanted)) {
      bool is_percentage = false;
      if (found[1].data() != nullptr) {
        const char* after = found[1].data() + found[1].size();
        while (after < log.data() + end && *after == ' ') ++after;
        is_percentage = after < log.data() + end && *after == '%';
      }
      use(std::string(found[1]), std::string(found[2]), is_percentage);
    }
    begin = end + 1;
  }
}

template <class Number>
std::optional<Number> parsed(std::string_view text) {
  Number number{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && rest == end && !text.empty() ? std::optional(number) : std::nullopt;
}

std::string shortened(const std::string& text) { return text.substr(0, 80); }

long count_of(const std::string& source, const std::string& group) {
  const std::optional<long> count = parsed<long>(group);
  if (count && *count >= 0) return *count;
  throw SuccessError(fmt::format("{}: found '{}' in a group, expected a number of episodes", source, shortened(group)));
}

double number_of(const std::string& source, const std::string& text) {
  const std::optional<double> number = parsed<double>(text);
  if (number && std::isfinite(*number)) return *number;
  throw SuccessError(fmt::format("{}: found '{}', expected a number", source, shortened(text)));
}

bool truth_of(const std::string& source, const std::string& text) {
  std::string word;
  for (const char c : text) word += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  for (const char* yes : {"true", "success", "succeeded", "yes", "1", "1.0"}) {
    if (word == yes) return true;
  }
  for (const char* no : {"false", "failure", "failed", "no", "0", "0.0"}) {
    if (word == no) return false;
  }
  throw SuccessError(
      fmt::format("{}: found '{}', expected true or false, success or failure, or 1 or 0", source, shortened(text)));
}

// A rate is printed with few digits; it still tells one number of successes. `is_whole`: without a decimal point or
// '%'.
void set_rate(Outcomes& outcomes, const std::string& source, double rate, bool is_whole, long episodes) {
  if (is_whole && rate == 1 && episodes > 1) {
    throw SuccessError(source + ": found 1, which may be a rate or one episode; expected 1.0, or 100%, or two groups");
  }
  if (rate < 0 || rate > 1) {
    throw SuccessError(fmt::format("{}: found the rate {}, expected 0 to 1, or a percentage with its %", source, rate));
  }
  const double succeeded = rate * static_cast<double>(episodes);
  if (std::abs(succeeded - std::round(succeeded)) > 0.1) {
    throw SuccessError(
        fmt::format("{}: found the rate {}, which no number of {} episodes has; does --episodes say how "
                    "many ran?",
                    source, rate, episodes));
  }
  outcomes.succeeded = std::lround(succeeded);
  outcomes.episodes = episodes;
}

void set_episodes(Outcomes& outcomes, std::vector<bool> by_episode) {
  if (by_episode.empty()) return;
  outcomes.succeeded = std::ranges::count(by_episode, true);
  outcomes.episodes = static_cast<long>(by_episode.size());
  outcomes.by_episode = std::move(by_episode);
}

// Anything else that is no file is an error when it is read.
bool is_absent(const fs::path& file) {
  std::error_code ignored;
  return fs::symlink_status(file, ignored).type() == fs::file_type::not_found;
}

// The cells of one column of a CSV file, and nothing without the file.
std::vector<std::string> read_column(const SceneOutput& output, const char* option, const std::string& rule) {
  const Place place = parse_place(option, with_scene(rule, output.scene), "COLUMN");
  const fs::path file = output.folder / place.file;
  if (is_absent(file)) return {};
  std::vector<std::vector<std::string>> rows;
  try {
    rows = parse_csv(model::read_file(file));
  } catch (const std::runtime_error& error) {  // it cannot be read, or is no CSV
    throw SuccessError(file.string() + ": " + error.what());
  }
  if (rows.empty()) return {};
  const auto column = std::ranges::find(rows.front(), place.key);
  if (column == rows.front().end()) {
    throw SuccessError(
        fmt::format("{}: has no column '{}'; found {}", file.string(), place.key, fmt::join(rows.front(), ", ")));
  }
  const auto index = static_cast<std::size_t>(column - rows.front().begin());
  std::vector<std::string> cells;
  for (std::size_t row = 1; row < rows.size(); ++row) {
    if (rows[row].size() != rows.front().size()) {
      throw SuccessError(fmt::format("{}: row {} has {} fields, expected {}", file.string(), row, rows[row].size(),
                                     rows.front().size()));
    }
    cells.push_back(rows[row][index]);
  }
  return cells;
}

// What lies under a path of keys; where that leads through a list, of every element.
struct Found {
  std::vector<Json> values;
  bool is_list = false;
};

void follow(const Json& value, std::string_view path, const std::string& source, Found& found) {
  if (value.is_array()) {
    found.is_list = true;
    for (const Json& element : value) follow(element, path, source, found);
    return;
  }
  if (path.empty()) {
    found.values.push_back(value);
    return;
  }
  const std::size_t dot = std::min(path.find('.'), path.size());
  const std::string key(path.substr(0, dot));
  if (!value.is_object() || !value.contains(key)) throw SuccessError(fmt::format("{}: has no '{}'", source, key));
  follow(value[key], path.substr(std::min(dot + 1, path.size())), source, found);
}

void read_json_rule(Outcomes& outcomes, const SceneOutput& output, const std::string& rule) {
  const Place place = parse_place("--success-json", with_scene(rule, output.scene), "KEY");
  const fs::path file = output.folder / place.file;
  if (is_absent(file)) return;
  Json content;
  try {
    content = model::read_json(file);
  } catch (const std::exception& error) {  // it cannot be read, or is no JSON
    throw SuccessError(error.what());
  }
  const std::string source = file.string() + ": " + place.key;
  Found found;
  follow(content, place.key, file.string(), found);
  if (!found.is_list) {
    const Json& rate = found.values.front();
    if (!rate.is_number()) throw SuccessError(source + ": is " + model::shown(rate) + ", expected a rate or a list");
    set_rate(outcomes, source, rate.get<double>(), rate.is_number_integer(), output.episodes);
    return;
  }
  std::vector<bool> by_episode;
  for (const Json& value : found.values) {
    by_episode.push_back(truth_of(source, value.is_string() ? value.get<std::string>() : value.dump()));
  }
  set_episodes(outcomes, std::move(by_episode));
}

void read_regex_rule(Outcomes& outcomes, const SceneOutput& output, const SuccessRules& rules) {
  const std::string source = fmt::format("--success-regex '{}'", rules.regex);
  const RE2 regex = compiled(rules.regex, output.scene);
  const bool is_pair = regex.NumberOfCapturingGroups() == 2;
  std::optional<std::pair<std::string, std::string>> last;
  bool is_percentage = false;
  each_match(output.log, regex, [&](std::string first, std::string second, bool percent) {
    last = {std::move(first), std::move(second)};
    is_percentage = percent;
  });
  if (!last) return;
  if (is_pair) {
    outcomes.succeeded = count_of(source, last->first);
    outcomes.episodes = count_of(source, last->second);
  } else if (!rules.episodes_regex.empty()) {
    std::optional<std::string> episodes;
    each_match(output.log, compiled(rules.episodes_regex, output.scene),
               [&](std::string group, const std::string&, bool) { episodes = std::move(group); });
    if (!episodes) return;
    outcomes.succeeded = count_of(source, last->first);
    outcomes.episodes = count_of(fmt::format("--episodes-regex '{}'", rules.episodes_regex), *episodes);
  } else {
    std::string text = last->first;
    if (text.ends_with('%')) {
      text.pop_back();
      is_percentage = true;
    }
    const bool is_whole = !is_percentage && text.find_first_not_of("0123456789") == std::string::npos;
    set_rate(outcomes, source, number_of(source, text) / (is_percentage ? 100 : 1), is_whole, output.episodes);
  }
  if (*outcomes.succeeded > *outcomes.episodes) {
    throw SuccessError(
        fmt::format("{}: found {} of {} episodes that succeeded", source, *outcomes.succeeded, *outcomes.episodes));
  }
}

void require_whole(const SceneOutput& output, const char* option) {
  if (!output.is_shortened) return;
  throw SuccessError(std::string(option) + ": the middle of the output is left out, and episodes with it");
}

void read_success(Outcomes& outcomes, const SceneOutput& output, const SuccessRules& rules) {
  std::vector<bool> by_episode;
  if (!rules.regex.empty()) read_regex_rule(outcomes, output, rules);
  if (!rules.json.empty()) read_json_rule(outcomes, output, rules.json);
  if (!rules.csv.empty()) {
    for (const std::string& cell : read_column(output, "--success-csv", rules.csv)) {
      by_episode.push_back(truth_of("--success-csv '" + rules.csv + "'", cell));
    }
  }
  if (!rules.episode_regex.empty()) {
    require_whole(output, "--episode-regex");
    each_match(output.log, compiled(rules.episode_regex, output.scene),
               [&](const std::string& group, const std::string&, bool) {
                 by_episode.push_back(truth_of("--episode-regex '" + rules.episode_regex + "'", group));
               });
  }
  set_episodes(outcomes, std::move(by_episode));
  if (!rules.videos.empty()) {
    const RE2 regex = compiled(rules.videos, output.scene);
    const Videos videos = videos_under(output.folder);
    if (videos.empty()) return;
    outcomes.episodes = static_cast<long>(videos.size());
    // In which order they were made is not known, so episodes of two runs cannot be compared one by one.
    outcomes.succeeded = std::ranges::count_if(videos, [&](const auto& video) {
      return RE2::PartialMatch(fs::relative(video.first, output.folder).string(), regex);
    });
  }
}

}  // namespace

bool SuccessRules::has_success() const {
  return !regex.empty() || !episode_regex.empty() || !csv.empty() || !json.empty() || !videos.empty();
}

void check_rules(const SuccessRules& rules) {
  check_pattern("--success-regex", rules.regex, 1, 2,
                "two: episodes that succeeded, episodes; or one: a rate, or the former beside --episodes-regex");
  check_pattern("--episodes-regex", rules.episodes_regex, 1, 1, "one: the number of episodes");
  check_pattern("--episode-regex", rules.episode_regex, 1, 1, "one: whether the episode succeeded");
  check_pattern("--success-videos", rules.videos, 0, 1, "none");
  check_pattern("--score-regex", rules.score_regex, 1, 1, "one: the episode's score");
  if (!rules.csv.empty()) parse_place("--success-csv", rules.csv, "COLUMN");
  if (!rules.json.empty()) parse_place("--success-json", rules.json, "KEY");
  if (!rules.score_csv.empty()) parse_place("--score-csv", rules.score_csv, "COLUMN");
  const auto at_most_one = [&](std::initializer_list<std::string SuccessRules::*> of) {
    std::vector<std::string> given;
    for (const auto& [rule, option] : rule_options) {
      if (std::ranges::find(of, rule) != of.end() && !(rules.*rule).empty()) given.emplace_back(option);
    }
    if (given.size() > 1) {
      throw std::invalid_argument(fmt::format("{} exclude each other", fmt::join(given, " and ")));
    }
  };
  at_most_one({&SuccessRules::regex, &SuccessRules::episode_regex, &SuccessRules::csv, &SuccessRules::json,
               &SuccessRules::videos});
  at_most_one({&SuccessRules::score_regex, &SuccessRules::score_csv});
  if (rules.episodes_regex.empty()) return;
  if (rules.regex.empty()) throw std::invalid_argument("--episodes-regex needs --success-regex with one group");
  if (compiled(rules.regex, "scene").NumberOfCapturingGroups() == 2) {
    throw std::invalid_argument("--episodes-regex: --success-regex has a group for the episodes already");
  }
}

Outcomes read_outcomes(const SuccessRules& rules, const SceneOutput& output) {
  Outcomes outcomes;
  read_success(outcomes, output, rules);
  if (!rules.score_regex.empty()) {
    require_whole(output, "--score-regex");
    each_match(output.log, compiled(rules.score_regex, output.scene),
               [&](const std::string& group, const std::string&, bool) {
                 outcomes.scores.push_back(number_of("--score-regex '" + rules.score_regex + "'", group));
               });
  }
  if (!rules.score_csv.empty()) {
    for (const std::string& cell : read_column(output, "--score-csv", rules.score_csv)) {
      outcomes.scores.push_back(number_of("--score-csv '" + rules.score_csv + "'", cell));
    }
  }
  return outcomes;
}

std::string description(const SuccessRules& rules) {
  std::vector<std::string> parts;
  for (const auto& [rule, option] : rule_options) {
    if (!(rules.*rule).empty()) parts.push_back(fmt::format("{} '{}'", option, rules.*rule));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

SuccessRules success_rules_from(const Json& content, const std::string& source) {
  SuccessRules rules;
  model::JsonFields fields(content, source);
  for (const auto& [rule, option] : rule_options) {
    const std::string key = std::string(option).substr(2);
    if (fields.has(key)) rules.*rule = fields.text(key);
  }
  fields.finish();
  return rules;
}

Json to_json(const SuccessRules& rules) {
  Json content = Json::object();
  for (const auto& [rule, option] : rule_options) {
    if (!(rules.*rule).empty()) content[std::string(option).substr(2)] = rules.*rule;
  }
  return content;
}

}  // namespace pi0::tools
