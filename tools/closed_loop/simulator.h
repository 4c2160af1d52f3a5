// A simulator of pi0 closed-loop: a shell command per scene, the success rate in its output, and its videos.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace pi0::tools {

// Replaces {name} by its value for every name of `values`, quoted for the shell where that is needed;
// ${name} is the shell's. Throws std::invalid_argument for any other {name}.
std::string fill_command(const std::string& command, const std::map<std::string, std::string>& values);

struct Success {
  long succeeded = 0;
  long episodes = 0;
};

// The two groups of the first match of a pattern in RE2's syntax, in which {scene} is the scene's name; none without a
// match. The log is taken as bytes, in any encoding and of any length. Throws std::invalid_argument for an invalid
// pattern or one that does not have two groups, when a group is not a number, and when more episodes succeeded than
// ran.
std::optional<Success> find_success(const std::string& log, const std::string& pattern, const std::string& scene);

// Video files under a folder with the time they were written; none when there is no such folder.
using Videos = std::map<std::filesystem::path, std::filesystem::file_time_type>;
Videos videos_under(const std::filesystem::path& folder);

// Copies those that `before` does not have to `to`, under their paths in `folder`, each whole or not at all.
// Throws std::runtime_error that names the file.
void collect_new_videos(const std::filesystem::path& folder, const Videos& before, const std::filesystem::path& to);

}  // namespace pi0::tools
