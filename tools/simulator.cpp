#include "tools/simulator.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <algorithm>
#include <regex>
#include <stdexcept>

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

std::string shell_word(const std::string& text) {
  static const std::regex plain("[A-Za-z0-9_@%+=:,./-]+");
  if (std::regex_match(text, plain)) return text;
  return "'" + std::regex_replace(text, std::regex("'"), "'\\''") + "'";
}

std::string literal_pattern(const std::string& text) {
  return std::regex_replace(text, std::regex(R"([.^$|()\[\]{}*+?\\])"), R"(\$&)");
}

}  // namespace

std::string fill_command(const std::string& command, const std::map<std::string, std::string>& values) {
  static const std::regex placeholder(R"((^|[^$])\{([a-z_]+)\})");
  std::string filled, rest = command;
  for (std::smatch found; std::regex_search(rest, found, placeholder); rest = found.suffix()) {
    const auto value = values.find(found[2]);
    if (value == values.end()) {
      std::vector<std::string> names;
      for (const auto& [name, unused] : values) names.push_back("{" + name + "}");
      throw std::invalid_argument(
          fmt::format("found {{{}}} in '{}', expected {}", found[2].str(), command, fmt::join(names, ", ")));
    }
    filled += found.prefix().str() + found[1].str() + shell_word(value->second);
  }
  return filled + rest;
}

std::optional<Success> find_success(const std::string& log, const std::string& pattern, const std::string& scene) {
  std::string with_scene = pattern;
  const std::string name = "{scene}";
  for (std::size_t at = 0; (at = with_scene.find(name, at)) != std::string::npos;) {
    const std::string literal = literal_pattern(scene);
    with_scene.replace(at, name.size(), literal);
    at += literal.size();
  }
  try {
    const std::regex regex(with_scene);
    if (regex.mark_count() != 2) {
      throw std::invalid_argument(fmt::format("'{}': found {} groups, expected two: episodes that succeeded, episodes",
                                              pattern, regex.mark_count()));
    }
    std::smatch found;
    if (!std::regex_search(log, found, regex)) return std::nullopt;
    try {
      return Success{std::stol(found[1]), std::stol(found[2])};
    } catch (const std::logic_error&) {
      throw std::invalid_argument(fmt::format("'{}': found '{}', expected numbers in its groups", pattern,
                                              found.str()));
    }
  } catch (const std::regex_error& error) {
    throw std::invalid_argument(fmt::format("'{}': is no regular expression: {}", pattern, error.what()));
  }
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
    const fs::path part = place.string() + ".part";
    fs::create_directories(place.parent_path());
    fs::copy_file(video, part, fs::copy_options::overwrite_existing);
    fs::rename(part, place);
  }
}

}  // namespace pi0::tools
