#include "tools/closed_loop/videos.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "protocol/files.h"

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
