#include "tools/common/usable_cpus.h"

#include <sched.h>

#include <algorithm>
#include <optional>
#include <string>

#include "support/catch.h"
#include "support/temporary_folder.h"

using pi0::test::TemporaryFolder;
using pi0::test::write_all;
using pi0::tools::cpu_quota;
using pi0::tools::usable_cpus;
namespace fs = std::filesystem;

namespace {

const std::string v1_mount = "32 24 0:29 / /sys/fs/cgroup/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n";
const std::string v2_mount = "28 24 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
const std::string other_mounts =
    "24 1 0:22 / /sys rw - sysfs sysfs rw\n31 24 0:28 / /sys/fs/cgroup/set rw - cgroup cgroup rw,cpuset\n";

// A made-up system with /proc and control groups.
class System {
 public:
  System(const std::string& groups, const std::string& mounts) {
    write("proc/self/cgroup", groups);
    write("proc/self/mountinfo", other_mounts + mounts);
  }
  void write(const fs::path& path, const std::string& text) const {
    fs::create_directories((root() / path).parent_path());
    write_all(root() / path, text);
  }
  void write_v1(const fs::path& group, const std::string& quota) const {
    write(group / "cpu.cfs_quota_us", quota + "\n");
    write(group / "cpu.cfs_period_us", "100000\n");
  }
  fs::path root() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
};

}  // namespace

TEST_CASE("a quota of version 2 is that of the group or of an ancestor, whichever is less", "[usable_cpus]") {
  const System system("0::/robots/arm\n", v2_mount);
  CHECK(cpu_quota(system.root()) == std::nullopt);
  system.write("sys/fs/cgroup/robots/arm/cpu.max", "max 100000\n");
  CHECK(cpu_quota(system.root()) == std::nullopt);
  system.write("sys/fs/cgroup/robots/cpu.max", "250000 100000\n");
  CHECK(cpu_quota(system.root()) == 2.5);
  system.write("sys/fs/cgroup/robots/arm/cpu.max", "75000 50000\n");
  CHECK(cpu_quota(system.root()) == 1.5);
  system.write("sys/fs/cgroup/robots/cpu.max", "20000 100000\n");
  CHECK(cpu_quota(system.root()) == 0.2);
  CHECK(usable_cpus(system.root()) == 1);
}

TEST_CASE("a quota of version 1 is that of the group or of an ancestor, whichever is less", "[usable_cpus]") {
  // Version 2 beside it has no CPU controller, and another hierarchy has another group.
  const System system("5:cpuset:/elsewhere\n3:cpu,cpuacct:/robots/arm\n0::/\n",
                      v1_mount + "33 24 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
  const fs::path mount = "sys/fs/cgroup/cpu";
  system.write_v1(mount / "robots/arm", "-1");
  system.write_v1(mount / "elsewhere", "10000");
  CHECK(cpu_quota(system.root()) == std::nullopt);
  system.write_v1(mount / "robots", "150000");
  CHECK(cpu_quota(system.root()) == 1.5);
  system.write_v1(mount / "robots/arm", "50000");
  CHECK(cpu_quota(system.root()) == 0.5);
  CHECK(usable_cpus(system.root()) == 1);
}

TEST_CASE("a container's mount shows its own group only", "[usable_cpus]") {
  const std::string mount = "32 24 0:29 /docker/1f /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
  for (const char* own : {"3:cpu:/docker/1f\n", "3:cpu:/\n", "3:cpu:/../other\n"}) {
    const System system(own, mount);
    system.write_v1("sys/fs/cgroup/cpu", "300000");
    system.write_v1("sys/fs/cgroup/other", "100000");
    CHECK(cpu_quota(system.root()) == 3.0);
  }
  const System inner("3:cpu:/docker/1f/inner\n", mount);
  inner.write_v1("sys/fs/cgroup/cpu/inner", "100000");
  CHECK(cpu_quota(inner.root()) == 1.0);
}

TEST_CASE("what cannot be read limits nothing", "[usable_cpus]") {
  const TemporaryFolder nothing;
  CHECK(cpu_quota(nothing.path()) == std::nullopt);
  CHECK(usable_cpus(nothing.path()) >= 1);
  const System odd("no group\n0::/a\n", v2_mount + "odd\n");
  for (const char* text : {"", "x", "0 0", "100000", "-5 100000"}) {
    odd.write("sys/fs/cgroup/a/cpu.max", text);
    CHECK(cpu_quota(odd.root()) == std::nullopt);
  }
}

TEST_CASE("as many CPUs as the process may run on, and no more than the quota", "[usable_cpus]") {
  cpu_set_t mask;
  REQUIRE(::sched_getaffinity(0, sizeof(mask), &mask) == 0);
  const int all = CPU_COUNT(&mask);
  const System system("0::/\n", v2_mount);
  CHECK(usable_cpus(system.root()) == all);
  for (const auto& [quota, most] : {std::pair{"110000 100000", 2}, {"100000 100000", 1}, {"99900000 100000", 999}}) {
    system.write("sys/fs/cgroup/cpu.max", quota);
    CHECK(usable_cpus(system.root()) == std::min(all, most));
  }
  cpu_set_t one;
  CPU_ZERO(&one);
  for (std::size_t cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &mask)) CPU_SET(cpu, &one);
  }
  REQUIRE(::sched_setaffinity(0, sizeof(one), &one) == 0);
  CHECK(usable_cpus(system.root()) == 1);
  REQUIRE(::sched_setaffinity(0, sizeof(mask), &mask) == 0);
}
