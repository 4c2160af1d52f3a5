"""tools/slurm on a one-node Slurm of its own: an array of shards and its merge are one sweep."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest

from support import PATIENCE_S, POLICIES, PROGRAMS, free_port, installed, one_instruction_set, run, wait_until, without_times

SCRIPTS = pathlib.Path(__file__).resolve().parent.parent.parent / "tools/slurm"
NAME = "pi05_droid_jointpos_polaris"
MODEL = ["--config", NAME, "--checkpoint-dir", POLICIES / NAME, *one_instruction_set()]

# RealMemory and CPUs need not be there: the node takes jobs whatever the machine has.
CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1
KillWait=1
NodeName=localhost CPUs=2 RealMemory=64000
PartitionName=all Nodes=localhost Default=YES
"""


class Cluster:
    """munged, slurmctld and slurmd of the current user, and all that they keep, in one folder."""

    def __init__(self, folder):
        self.folder = folder
        around = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        self.environment = {**around, "SLURM_CONF": str(folder / "slurm.conf"), "PI0": str(PROGRAMS / "pi0")}
        self.daemons = []

    def start(self):
        programs = {name: installed(name, "slurm-wlm munge") for name in ("munged", "slurmctld", "slurmd", "sbatch")}
        ports = {"controller_port": free_port(), "node_port": free_port()}
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(folder=self.folder, user=os.getuid(), **ports)
        )
        (self.folder / "state").mkdir()
        (self.folder / "spool").mkdir()
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        files = [f"--{name}-file={self.folder / 'munge'}.{name}" for name in ("key", "log", "pid", "seed")]
        self.run_daemon(programs["munged"], "--foreground", "--force", f"--socket={self.folder}/munge.socket", *files)
        wait_until(lambda: self.daemons_live() and (self.folder / "munge.socket").exists(), "munged has its socket", 120)
        self.run_daemon(programs["slurmctld"], "-D")
        self.run_daemon(programs["slurmd"], "-D", "-N", "localhost")
        wait_until(lambda: self.daemons_live() and self.states("sinfo", "--format=%T") == ["idle"], "the node is idle", 120)

    def run_daemon(self, *command):
        with (self.folder / f"{pathlib.Path(command[0]).name}.out").open("w") as log:
            self.daemons.append(subprocess.Popen(command, env=self.environment, stdout=log, stderr=log))

    def daemons_live(self):
        for daemon in self.daemons:
            if daemon.poll() is not None:
                raise ChildProcessError(f"{daemon.args[0]} ended with {daemon.returncode}")
        return True

    def logs(self):
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(self.folder.glob("*.out")))

    def command(self, *command):
        return subprocess.run(
            [*map(str, command)], env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE_S
        )

    def states(self, *query):
        return sorted(set(self.command(*query, "--noheader").stdout.split()))

    def wait_for_job(self, job):
        """The states that its tasks ended in."""

        def ended():
            states = self.states("squeue", "--states=all", f"--jobs={job}", "--format=%T")
            return states if unfinished.isdisjoint(states) else []

        unfinished = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING"}
        return wait_until(ended, f"the end of job {job}")

    def processes(self):
        """The daemons and what they started, also what slurmd left on its own: all know the folder."""
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if bytes(self.folder) in (process / "environ").read_bytes():
                    yield int(process.name)

    def stop(self):
        while running := list(self.processes()):
            for process in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        for daemon in self.daemons:
            daemon.wait()


class SlurmTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.cluster = Cluster(pathlib.Path(folder.name))
        cls.addClassCleanup(cls.cluster.stop)
        try:
            cls.cluster.start()
        except (ChildProcessError, TimeoutError) as error:
            print(cls.cluster.logs(), file=sys.stderr)
            raise unittest.SkipTest(f"Slurm does not start here: {error}") from error

    def setUp(self):
        self.folder = self.cluster.folder / self.id()
        self.folder.mkdir()
        self.output = self.folder / "sweep of two"

    def submit(self, *sweep, shards=3):
        """The ids of the array and of the merge."""
        options = ["--cpus-per-task=1", "--chdir", self.folder]
        command = ["bash", SCRIPTS / "submit.sh", shards, *options, "--", *MODEL, *sweep, "--output", self.output]
        done = self.cluster.command(*command)
        self.assertEqual(done.returncode, 0, done.stderr)
        return re.findall(r"job (\d+)", done.stdout)

    def compare_with_one_run(self, *sweep):
        whole = self.folder / "whole"
        done = run("pi0", "sweep", *MODEL, *sweep, "--threads", 1, "--output", whole)
        self.assertEqual(done.returncode, 0, done.stderr)
        found, expected = (json.loads((at / "summary.json").read_text()) for at in (self.output, whole))
        self.assertEqual(without_times(found), without_times(expected))

    def log_of(self, job):
        return "".join(log.read_text() for log in sorted(self.folder.glob(f"*-{job}*.log")))

    def test_an_array_and_its_merge_give_the_summary_of_one_run(self):
        sweep = ["--synthetic", 1, "--num-steps", 1, "--input-fmts", "bfloat16,float8_e4m3",
                 "--output-fmts", "float32,float16,bfloat16,float8_e4m3"]  # fmt: skip
        array, merge = self.submit(*sweep)
        self.assertEqual(self.cluster.wait_for_job(merge), ["COMPLETED"], self.log_of(array) + self.log_of(merge))
        self.compare_with_one_run(*sweep)
        for task, settings in ((1, 3), (2, 3), (3, 2)):
            self.assertIn(f"{settings} of {settings}, ", self.log_of(f"{array}_{task}"))

    def test_a_killed_task_cancels_the_merge_and_the_same_command_again_goes_on(self):
        sweep = ["--synthetic", 4, "--num-steps", 20, "--input-fmts", "bfloat16,float8_e4m3",
                 "--output-fmts", "float32,float16,bfloat16"]  # fmt: skip
        array, merge = self.submit(*sweep, shards=2)
        first = self.output / "bfloat16__float16" / "result.json"
        wait_until(first.exists, "the first result of the second shard")
        self.cluster.command("scancel", "--signal=KILL", f"{array}_2")
        self.assertEqual(self.cluster.wait_for_job(merge), ["CANCELLED"])
        self.assertFalse((self.output / "summary.json").exists())
        kept = first.stat().st_mtime_ns
        array, merge = self.submit(*sweep, shards=2)
        self.assertEqual(self.cluster.wait_for_job(merge), ["COMPLETED"], self.log_of(array) + self.log_of(merge))
        self.assertEqual(first.stat().st_mtime_ns, kept)
        self.compare_with_one_run(*sweep)

    def test_arrays_that_do_not_count_from_one_are_refused(self):
        jobs = {}
        for array in ("0,2", "1,3"):
            script = ["--cpus-per-task=1", f"--array={array}", "--chdir", self.folder, SCRIPTS / "sweep.sbatch"]
            done = self.cluster.command("sbatch", "--parsable", *script, *MODEL, "--output", self.output)
            jobs[array] = done.stdout.strip()
        for array, found in (("0,2", "found 2 array tasks, from 0 to 2"), ("1,3", "found 2 array tasks, from 1 to 3")):
            self.assertEqual(self.cluster.wait_for_job(jobs[array]), ["FAILED"])
            self.assertIn(found, self.log_of(jobs[array]))

    def test_a_wrong_command_line_submits_nothing(self):
        for arguments, found in (
            (["four", "--", "--output", "x"], "'four'"),
            (["4", "--output", "x"], "found no --,"),
            (["4", "--", *MODEL], "--output DIR"),
        ):
            done = self.cluster.command("bash", SCRIPTS / "submit.sh", *arguments)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn(found, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
