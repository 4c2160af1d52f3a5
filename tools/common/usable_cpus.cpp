#include "tools/common/usable_cpus.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace pi0::tools {
namespace {

namespace fs = std::filesystem;

bool lists(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

// A mounted hierarchy that can limit CPU time.
struct Hierarchy {
  bool is_first_version;
  fs::path group;  // of the hierarchy that the mount shows
  fs::path mount;
};

std::vector<Hierarchy> hierarchies(const fs::path& root) {
  std::vector<Hierarchy> found;
  std::ifstream mounts(root / "proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line), after_optional(line.substr(std::min(line.find(" - "), line.size())));
    std::string number, parent, device, group, mount, dash, type, source, options;
    fields >> number >> parent >> device >> group >> mount;
    after_optional >> dash >> type >> source >> options;
    const bool is_first_version = type == "cgroup" && lists(options, "cpu");
    if (is_first_version || type == "cgroup2") found.push_back({is_first_version, group, mount});
  }
  return found;
}

// This process's group, as /proc/self/cgroup names it: "4:cpu,cpuacct:/group", "0::/group".
std::optional<fs::path> own_group(const fs::path& root, bool is_first_version) {
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (is_first_version ? lists(controllers, "cpu") : line.starts_with("0::")) return line.substr(second + 1);
  }
  return std::nullopt;
}

std::optional<double> quota_of(const fs::path& group, bool is_first_version) {
  double quota = 0, period = 0;
  if (is_first_version) {
    std::ifstream(group / "cpu.cfs_quota_us") >> quota;
    std::ifstream(group / "cpu.cfs_period_us") >> period;
  } else {
    std::ifstream(group / "cpu.max") >> quota >> period;
  }
  // Without a quota, it is -1 or the word max.
  return quota > 0 && period > 0 ? std::optional(quota / period) : std::nullopt;
}

int cpus_to_run_on() {
  std::array<cpu_set_t, 16> mask{};  // one alone has room for 1024
  if (::sched_getaffinity(0, sizeof(mask), mask.data()) == 0) return CPU_COUNT_S(sizeof(mask), mask.data());
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

std::optional<double> cpu_quota(const fs::path& root) {
  std::optional<double> least;
  for (const Hierarchy& hierarchy : hierarchies(root)) {
    const std::optional<fs::path> own = own_group(root, hierarchy.is_first_version);
    if (!own) continue;
    // A container may see its group alone: that is then the mount, and the name may be one of outside.
    fs::path group = own->lexically_relative(hierarchy.group);
    if (group.empty() || *group.begin() == "..") group = ".";
    fs::path place = root / hierarchy.mount.relative_path();
    const auto note = [&] {
      const std::optional<double> quota = quota_of(place, hierarchy.is_first_version);
      if (quota) least = std::min(least.value_or(*quota), *quota);
    };
    note();
    for (const fs::path& step : group) {
      place /= step;
      note();
    }
  }
  return least;
}

int usable_cpus(const fs::path& root) {
  const std::optional<double> quota = cpu_quota(root);
  const int cpus = std::max(1, cpus_to_run_on());
  return quota && *quota < cpus ? static_cast<int>(std::ceil(*quota)) : cpus;
}

}  // namespace pi0::tools
