#include <cmath>
#include <string>
#include <vector>

#include "support/catch.h"
#include "support/temporary_folder.h"
#include "tools/closed_loop/command_template.h"
#include "tools/closed_loop/success_rules.h"
#include "tools/closed_loop/success_statistics.h"
#include "tools/common/csv.h"

using namespace pi0::tools;
using Catch::Matchers::Message;
using pi0::contains_text;
using pi0::test::TemporaryFolder;
using pi0::test::write_all;

namespace {

SuccessRules rule(std::string SuccessRules::*which, const std::string& text) {
  SuccessRules rules;
  rules.*which = text;
  return rules;
}

// "3/5 10110 4.5,20": successes, episodes, each episode, and scores.
std::string found(const SuccessRules& rules, const SceneOutput& output) {
  check_rules(rules);
  std::string text;
  try {
    const Outcomes outcomes = read_outcomes(rules, output);
    text = outcomes.succeeded ? std::to_string(*outcomes.succeeded) + "/" + std::to_string(*outcomes.episodes) : "none";
    if (!outcomes.by_episode.empty()) text += " ";
    for (const bool success : outcomes.by_episode) text += success ? "1" : "0";
    for (const double score : outcomes.scores) text += " " + std::to_string(score).substr(0, 4);
  } catch (const SuccessError& error) {
    text = error.what();
  }
  return text;
}

std::string in_log(const SuccessRules& rules, const std::string& log, long episodes = 10) {
  return found(rules, {"a.b", log, ".", episodes});
}

std::string refusal_of(const SuccessRules& rules) {
  try {
    check_rules(rules);
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("success is read line by line, and the last match counts", "[closed_loop]") {
  const SuccessRules original = rule(&SuccessRules::regex, original_success_regex);
  CHECK(in_log(original, "scene a.b: 1/2\r\nscene a.b: 2/3\nScene a.b 3/5") == "3/5");
  CHECK(in_log(original, "scene aXb: 1/2\nscene\na.b: 1/2\n") == "none");
  CHECK(in_log(original, "") == "none");
  CHECK_THAT(in_log(original, "scene a.b: 7/5"), contains_text("found 7 of 5"));
  CHECK_THAT(in_log(original, "scene a.b: 99999999999999999999/5"), contains_text("found '99999999999999999999'"));
  CHECK(in_log(original, "\xff\xfe\nscene a.b: 0/5\n") == "0/5");
}

TEST_CASE("a rate tells how many of the episodes succeeded", "[closed_loop]") {
  const SuccessRules rate = rule(&SuccessRules::regex, R"(rate:? ([\d.]+%?))");
  CHECK(in_log(rate, "rate 0.1\nrate: 0.3") == "3/10");
  CHECK(in_log(rate, "rate 30.0%") == "3/10");
  CHECK(in_log(rate, "rate 33.3%", 3) == "1/3");
  CHECK(in_log(rule(&SuccessRules::regex, R"(rate ([\d.]+))"), "rate 33.3%", 3) == "1/3");
  CHECK_THAT(in_log(rate, "rate 30"), contains_text("found the rate 30, expected 0 to 1, or a percentage"));
  CHECK_THAT(in_log(rate, "rate 0.25"), contains_text("which no number of 10 episodes has"));
  CHECK(in_log(rate, "rate 1.0") == "10/10");
  CHECK(in_log(rate, "rate 10 %") == "1/10");
  CHECK_THAT(in_log(rate, "rate 1"), contains_text("may be a rate or one episode"));
  CHECK(in_log(rate, "rate 1", 1) == "1/1");
  const SuccessRules either = rule(&SuccessRules::regex, R"((?:(\d+)%|(\d+) of 5))");
  CHECK_THAT(in_log(either, "3 of 5"), contains_text("found '' in a group"));
  CHECK_THAT(in_log(rate, "rate 1.2.3"), contains_text("found '1.2.3', expected a number"));
}

TEST_CASE("LIBERO's totals stand on two lines", "[closed_loop]") {
  SuccessRules rules = rule(&SuccessRules::regex, R"(# successes: (\d+))");
  rules.episodes_regex = R"(Total episodes: (\d+))";
  const std::string log = "# successes: 1 (100.0%)\n# successes: 3 (30.0%)\nTotal episodes: 10\n";
  CHECK(in_log(rules, log) == "3/10");
  CHECK(in_log(rules, "# successes: 3 (30.0%)\n") == "none");
}

TEST_CASE("each match is an episode", "[closed_loop]") {
  SuccessRules rules = rule(&SuccessRules::episode_regex, R"(episode \d+: (\w+))");
  rules.score_regex = R"(([\d.]+) mm)";
  CHECK(in_log(rules, "episode 0: success, 4.5 mm\nepisode 1: Failure, 20 mm\n") == "1/2 10 4.50 20.0");
  CHECK_THAT(in_log(rules, "episode 0: maybe\n"), contains_text("found 'maybe', expected true or false"));
}

TEST_CASE("episodes are not counted in an output without its middle", "[closed_loop]") {
  const SceneOutput shortened{"s", "ok: 1\n", ".", 2, /*is_shortened=*/true};
  CHECK_THAT(found(rule(&SuccessRules::episode_regex, "ok: (.)"), shortened),
             contains_text("the middle of the output"));
  CHECK_THAT(found(rule(&SuccessRules::score_regex, "ok: (.)"), shortened), contains_text("the middle of the output"));
  CHECK(found(rule(&SuccessRules::regex, "(o)k: (1)"), shortened) != "none");
}

TEST_CASE("success is read from files of the scene's folder", "[closed_loop]") {
  const TemporaryFolder folder;
  const SceneOutput output{"s", "", folder.path(), 4};
  write_all(folder.path() / "s.csv", "name,success,\"the \"\"progress\"\"\"\n\"a, b\",True,0.5\nc,0,1\n");
  SuccessRules csv = rule(&SuccessRules::csv, "{scene}.csv:success");
  csv.score_csv = "s.csv:the \"progress\"";
  CHECK(found(csv, output) == "1/2 10 0.50 1.00");
  CHECK_THAT(found(rule(&SuccessRules::csv, "s.csv:sucess"), output),
             contains_text("no column 'sucess'; found name, success"));
  CHECK(found(rule(&SuccessRules::csv, "other.csv:success"), output) == "none");
  write_all(folder.path() / "bom.csv", "\xEF\xBB\xBFsuccess,x\r\n1,2\r\n\r\n");
  CHECK(found(rule(&SuccessRules::csv, "bom.csv:success"), output) == "1/1 1");
  write_all(folder.path() / "bom.csv", "success\n\"True,\nFalse\n");
  CHECK_THAT(found(rule(&SuccessRules::csv, "bom.csv:success"), output), contains_text("a quote has no end"));
  write_all(folder.path() / "bom.csv", "success\nTrue\n\nTrue\n");
  CHECK_THAT(found(rule(&SuccessRules::csv, "bom.csv:success"), output), contains_text("found ''"));
  CHECK_THAT(found(rule(&SuccessRules::csv, ".:success"), output), contains_text("is a folder"));
  write_all(folder.path() / "s.csv", "success\n1\n1,2\n");
  CHECK_THAT(found(csv, output), contains_text("row 2 has 2 fields, expected 1"));

  write_all(folder.path() / "s.json",
            R"({"rate": 0.75, "one": 1, "episodes": [{"ok": true}, {"ok": 0}], "ones": [1], "bad": "x"})");
  CHECK(found(rule(&SuccessRules::json, "s.json:rate"), output) == "3/4");
  CHECK(found(rule(&SuccessRules::json, "s.json:episodes.ok"), output) == "1/2 10");
  CHECK(found(rule(&SuccessRules::json, "s.json:ones"), output) == "1/1 1");
  CHECK_THAT(found(rule(&SuccessRules::json, "s.json:one"), output), contains_text("may be a rate or one episode"));
  CHECK_THAT(found(rule(&SuccessRules::json, "s.json:bad"), output), contains_text("expected a rate or a list"));
  CHECK_THAT(found(rule(&SuccessRules::json, "s.json:none"), output), contains_text("has no 'none'"));
  write_all(folder.path() / "s.json", "{");
  CHECK_THAT(found(rule(&SuccessRules::json, "s.json:rate"), output), contains_text("s.json"));

  const SuccessRules videos = rule(&SuccessRules::videos, "_success\\.mp4$");
  CHECK(found(videos, output) == "none");
  for (const char* name : {"0_success.mp4", "1_failure.mp4", "2_success.mp4"}) write_all(folder.path() / name, "");
  CHECK(found(videos, output) == "2/3");
}

TEST_CASE("rules that make no sense are refused", "[closed_loop]") {
  CHECK_THAT(refusal_of(rule(&SuccessRules::regex, "((")), contains_text("no regular expression"));
  CHECK_THAT(refusal_of(rule(&SuccessRules::regex, "a")), contains_text("found 0 groups, expected two"));
  CHECK_THAT(refusal_of(rule(&SuccessRules::csv, "file.csv")), contains_text("expected FILE:COLUMN"));
  SuccessRules two = rule(&SuccessRules::regex, "(a)");
  two.csv = "a:b";
  CHECK_THAT(refusal_of(two), contains_text("--success-regex and --success-csv exclude each other"));
  CHECK_THAT(refusal_of(rule(&SuccessRules::episodes_regex, "(a)")), contains_text("needs --success-regex"));
  SuccessRules both = rule(&SuccessRules::regex, "(a)(b)");
  both.episodes_regex = "(a)";
  CHECK_THAT(refusal_of(both), contains_text("has a group for the episodes already"));
}

TEST_CASE("ordinary patterns read a log of any length", "[closed_loop]") {
  std::string log;
  for (int line = 0; line < 1'000'000; ++line) log += "step 12345\n";  // 10 MB
  log += "x: 3\n";
  SuccessRules rules = rule(&SuccessRules::regex, R"((?:.|\n)*x: (\d+))");
  rules.episodes_regex = R"(^[\s\S]*: (\d+)$)";
  CHECK(in_log(rules, log) == "3/3");
  log.assign(10'000'000, 'a');
  CHECK(in_log(rule(&SuccessRules::regex, R"((?:a|.)*: (\d\.\d))"), log + ": 1.0") == "10/10");
}

TEST_CASE("a command's placeholders are filled", "[closed_loop]") {
  const std::map<std::string, std::string> values = {{"port", "80"}, {"scene", "a b'c"}};
  CHECK(fill_command("run {port} {scene} ${port} ${X:-{}} {{port}} {{{port}}}", values) ==
        R"(run 80 'a b'\''c' ${port} ${X:-{}} {port} {80})");
  CHECK_THROWS_WITH(fill_command("run {prot}", values), contains_text("found {prot}"));
}

// Reference: the score interval of R's binom::binom.confint(methods = "wilson"), and mcnemar.exact.
TEST_CASE("intervals and tests are those of the literature", "[closed_loop]") {
  const auto [low, high] = wilson_interval(3, 10);
  CHECK(std::abs(low - 0.1077913) < 1e-6);
  CHECK(std::abs(high - 0.6032219) < 1e-6);
  CHECK(wilson_interval(0, 5).first == 0);
  CHECK(std::abs(wilson_interval(0, 5).second - 0.4344825) < 1e-6);
  CHECK(wilson_interval(5, 5).second == 1);

  std::vector<bool> first(20, true), second(20, true);
  for (std::size_t i = 0; i < 8; ++i) second[i] = false;
  first[19] = false;
  const PairedTest test = mcnemar_test(first, second);
  CHECK(test.only_first == 8);
  CHECK(test.only_second == 1);
  CHECK(std::abs(test.p - 0.0390625) < 1e-12);  // 2 (1 + 9) / 2^9
  CHECK(mcnemar_test(first, first).p == 1);

  const Mean mean = mean_of({1, 2, 3, 4});
  CHECK(mean.value == 2.5);
  CHECK(std::abs(mean.interval->second - (2.5 + 3.182446 * 0.6454972)) < 1e-5);
  CHECK(!mean_of({1}).interval);
}
