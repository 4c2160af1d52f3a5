// How many CPUs this process may use.
#pragma once

#include <filesystem>
#include <optional>

namespace pi0::tools {

// CPU time per time that the quotas of this process's control groups and their ancestors leave, versions 1 and 2; none
// without a quota. `root` is where /proc and the mounted control groups are looked for.
std::optional<double> cpu_quota(const std::filesystem::path& root = "/");

// How many CPUs this process may run on, and no more than its quota, rounded up; at least 1.
int usable_cpus(const std::filesystem::path& root = "/");

}  // namespace pi0::tools
