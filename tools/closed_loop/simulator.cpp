#include "tools/closed_loop/simulator.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <stdexcept>
#include <utility>
#include <vector>

#include "protocol/files.h"
#include "tools/common/print.h"
#include "tools/common/shell_word.h"

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

void copy_whole(const fs::path& from, const fs::path& to) {
  std::ifstream source(from, std::ios::binary);
  protocol::WholeFile file(to);
  std::vector<char> bytes(std::size_t{1} << 20);
  while (source.read(bytes.data(), static_cast<std::streamsize>(bytes.size())) || source.gcount() > 0) {
    file.write(bytes.data(), static_cast<std::size_t>(source.gcount()));
  }
  if (!source.eof()) throw std::runtime_error(from.string() + ": cannot be read");
  file.keep();
}

}  // namespace

std::string fill_command(const std::string& command, const std::map<std::string, std::string>& values) {
  static const RE2 placeholder(R"((^|[^$])\{([a-z_]+)\})");
  std::string filled;
  re2::StringPiece rest(command);
  std::array<re2::StringPiece, 3> found;  // the match, the character before the brace, the name
  while (placeholder.Match(rest, 0, rest.size(), RE2::UNANCHORED, found.data(), found.size())) {
    const auto value = values.find(std::string(found[2]));
    if (value == values.end()) {
      std::vector<std::string> names;
      for (const auto& [name, unused] : values) names.push_back("{" + name + "}");
      throw std::invalid_argument(
          fmt::format("found {{{}}} in '{}', expected {}", std::string(found[2]), command, fmt::join(names, ", ")));
    }
    filled.append(rest.data(), found[1].data() + found[1].size()).append(shell_word(value->second));
    rest.remove_prefix(static_cast<std::size_t>(found[0].data() + found[0].size() - rest.data()));
  }
  return filled.append(rest.data(), rest.size());
}

std::optional<Success> find_success(const std::string& log, const std::string& pattern, const std::string& scene) {
  std::string with_scene = pattern;
  const std::string name = "{scene}";
  for (std::size_t at = 0; (at = with_scene.find(name, at)) != std::string::npos;) {
    const std::string literal = RE2::QuoteMeta(scene);
    with_scene.replace(at, name.size(), literal);
    at += literal.size();
  }
  RE2::Options options(RE2::Latin1);  // bytes: a log may hold anything
  options.set_log_errors(false);
  const RE2 regex(with_scene, options);
  if (!regex.ok()) {
    throw std::invalid_argument(
        fmt::format("'{}': is no regular expression of RE2's syntax: {}", pattern, regex.error()));
  }
  if (regex.NumberOfCapturingGroups() != 2) {
    throw std::invalid_argument(
        fmt::format("'{}': found {}, expected two: episodes that succeeded, episodes", pattern,
                    counted(static_cast<std::size_t>(regex.NumberOfCapturingGroups()), "group")));
  }
  std::array<re2::StringPiece, 3> found;
  if (!regex.Match(log, 0, log.size(), RE2::UNANCHORED, found.data(), found.size())) return std::nullopt;
  Success success;
  for (const auto& [group, number] :
       {std::pair(found[1], &success.succeeded), std::pair(found[2], &success.episodes)}) {
    const char* const end = group.data() + group.size();
    const auto [rest, error] = std::from_chars(group.data(), end, *number);
    if (error == std::errc() && rest == end && !group.empty()) continue;
    throw std::invalid_argument(
        fmt::format("'{}': found '{}' in a group, expected a number", pattern, std::string(group).substr(0, 80)));
  }
  if (success.succeeded > success.episodes) {
    throw std::invalid_argument(
        fmt::format("'{}': found {} of {} episodes that succeeded", pattern, success.succeeded, success.episodes));
  }
  return success;
}

Videos videos_under(const fs::path& folder) {
  constexpr std::array endings = {".mp4", ".webm", ".mkv", ".avi", ".gif"};
  Videos videos;
  std::error_code none;
  for (fs::recursive_directory_iterator file(folder, none), end; file != end; file.increment(none)) {
    const std::string ending = file->path().extension().string();
    if (file->is_regular_file() && std::ranges::find(endings, ending) != endings.end()) {
      videos.emplace(file->path(), file->last_write_time());
    }
  }
  return videos;
}

void collect_new_videos(const fs::path& folder, const Videos& before, const fs::path& to) {
  for (const auto& [video, written] : videos_under(folder)) {
    const auto earlier = before.find(video);
    if (earlier != before.end() && earlier->second == written) continue;
    const fs::path place = to / fs::relative(video, folder);
    fs::create_directories(place.parent_path());
    copy_whole(video, place);
  }
}

}  // namespace pi0::tools
