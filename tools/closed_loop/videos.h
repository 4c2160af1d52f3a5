// The videos that a simulator writes.
#pragma once

#include <filesystem>
#include <map>

namespace pi0::tools {

// Video files under a folder with the time they were written; none when there is no such folder.
using Videos = std::map<std::filesystem::path, std::filesystem::file_time_type>;
Videos videos_under(const std::filesystem::path& folder);

// Copies those that `before` does not have to `to`, under their paths in `folder`, each whole or not at all.
// Throws std::runtime_error that names the file.
void collect_new_videos(const std::filesystem::path& folder, const Videos& before, const std::filesystem::path& to);

}  // namespace pi0::tools
