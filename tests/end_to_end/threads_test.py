"""The model's threads: as many as the process may use CPUs, and they sleep while they wait for each other."""

import os
import pathlib
import re
import unittest

from openpi_client.websocket_client_policy import WebsocketClientPolicy

from support import POLICIES, TemporaryFolderTest, golden_request, run, serve

FOLDER = POLICIES / "pi05_droid"
MODEL = ["--config", "pi05_droid", "--checkpoint-dir", FOLDER]


def control_group():
    """A new control group for CPU time below this process's own, with its version; None where that is not allowed."""
    groups = dict(line.split(":", 2)[1:] for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines())
    places = [(1, pathlib.Path("/sys/fs/cgroup") / name, path) for name, path in groups.items() if "cpu" in name.split(",")]
    for version, mount, path in [*places, (2, pathlib.Path("/sys/fs/cgroup"), groups.get("", "/"))]:
        group = mount / path.lstrip("/") / f"pi0_threads_test_{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / ("cpu.cfs_quota_us", "cpu.max")[version - 1]).exists():
            return group, version
        group.rmdir()
    return None


class ThreadsTest(TemporaryFolderTest):
    def dry_run(self, *arguments):
        done = run("pi0-server", *MODEL, "--dry-run", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return int(re.search(r", (\d+) CPU threads?, ", done.stderr).group(1)), done.stderr

    def test_affinity_and_more_threads_than_cpus(self):
        allowed = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, allowed)
        os.sched_setaffinity(0, {min(allowed)})
        threads, log = self.dry_run()
        self.assertEqual(threads, 1)
        self.assertNotIn("--threads", log)
        threads, log = self.dry_run("--threads", 3)
        self.assertEqual(threads, 3)
        self.assertEqual(log.count("--threads 3: this process may use 1 CPU; "), 1, log)
        for command in (["infer", "--request", FOLDER / "request.msgpack", "--default-prompt", "go", "--output", self.folder / "answer"],
                        ["bench", "--repeats", 1, "--warmup", 0, "--num-steps", 1],
                        ["sweep", "--synthetic", 1, "--num-steps", 1, "--pairs", "float16/float16", "--output", self.folder / "sweep"]):  # fmt: skip
            done = run("pi0", command[0], *MODEL, *command[1:], "--threads", 3)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stderr.count("--threads 3: "), 1, done.stderr)

    def test_quota(self):
        made = control_group()
        if made is None:
            self.skipTest("no control group can be made here")
        group, version = made
        self.addCleanup(group.rmdir)

        def set_quota(us):
            if version == 1:
                (group / "cpu.cfs_quota_us").write_text(str(us))
            else:
                (group / "cpu.max").write_text(f"{us} 100000")

        own = pathlib.Path(f"/proc/{os.getpid()}/cgroup").read_text()
        self.addCleanup(lambda: self.assertEqual(pathlib.Path(f"/proc/{os.getpid()}/cgroup").read_text(), own))
        self.addCleanup((group.parent / "cgroup.procs").write_text, str(os.getpid()))
        set_quota(90_000)
        (group / "cgroup.procs").write_text(str(os.getpid()))
        self.assertEqual(self.dry_run()[0], 1)
        threads, log = self.dry_run("--threads", 2)
        self.assertEqual(threads, 2)
        self.assertIn("--threads 2: this process may use 1 CPU; ", log)
        set_quota(110_000)  # rounded up
        self.assertEqual(self.dry_run()[0], min(2, len(os.sched_getaffinity(0))))

    def test_spins_are_set_before_libraries_are(self):
        passive = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}  # ctest sets one
        plain = {key: value for key, value in os.environ.items() if key not in passive}
        for program in ("pi0", "pi0-server"):
            for given, expected in (({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7")):
                done = run(program, "--version", environment={**plain, **given, "LD_DEBUG": "files", "OMP_DISPLAY_ENV": "VERBOSE"})
                self.assertEqual(done.returncode, 0)
                self.assertEqual(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr), [expected])
                self.assertEqual(len(re.findall(r"calling init: .*/libtorch_cpu\.so", done.stderr)), 1)
                self.assertNotRegex(done.stderr, r"calling fini: \S*/libtorch_cpu\.so")

    def test_threads_sleep_while_they_wait(self):
        def sleeps(pid):
            status = [path.read_text() for path in pathlib.Path(f"/proc/{pid}/task").glob("*/status")]
            return sum(int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE).group(1)) for text in status)

        passive = os.environ.pop("OMP_WAIT_POLICY", None)  # ctest sets it
        if passive is not None:
            self.addCleanup(os.environ.__setitem__, "OMP_WAIT_POLICY", passive)
        with serve(*MODEL, "--default-prompt", "go", "--threads", 2) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            request = golden_request(FOLDER)
            client.infer(request)
            before = sleeps(server.process.pid)
            for _ in range(3):
                client.infer(request)
            slept = sleeps(server.process.pid) - before
        self.assertGreater(slept, 3 * 60)


if __name__ == "__main__":
    unittest.main()
