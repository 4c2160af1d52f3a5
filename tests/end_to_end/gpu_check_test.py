"""tools/gpu_check.sh with programs that stand in for ours, the peers and a GPU's driver: what becomes of its steps."""

import json
import os
import pathlib
import subprocess
import unittest

from support import PATIENCE_S, TemporaryFolderTest

SCRIPT = pathlib.Path(__file__).resolve().parent.parent.parent / "tools/gpu_check.sh"
PASSES = "echo 'All tests passed (7 assertions in 1 test case)'"
BENCH = """
while [ "$1" != --json ]; do shift; done
record() { echo "{\\"mode\\": \\"$1\\", \\"seconds\\": {\\"median\\": $2, \\"min\\": $2}, \\"counted\\": 1,
  \\"settings\\": {\\"repeats\\": 1}, \\"gemm\\": {\\"gflop_per_second\\": 5}}"; }
"""
PI0 = """
echo "{\\"unquantized\\": $(record unquantized 0.5), \\"with_statistics\\": $(record with_statistics 2),
  \\"ratios\\": {}}" >"$2"
"""
PEER = """
case $2 in
  */peers.json) echo "{\\"eager\\": $(record eager 1), \\"original\\": $(record original 3)}" >"$2" ;;
  *) echo "no C compiler" >&2 && exit 1 ;;
esac
"""


class GpuCheckTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        for name in ("openpi", "quant", "output", "programs/tests", "path"):
            (self.folder / name).mkdir(parents=True)
        self.write("programs/pi0", BENCH + PI0)
        self.write("programs/tests/model_test", PASSES)
        self.write("programs/tests/quant_test", PASSES)
        self.write("path/nvidia-smi", "echo 'A card, 1 MiB'")
        self.write("peer", BENCH + PEER)

    def write(self, name, script):
        (self.folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (self.folder / name).chmod(0o755)

    def check(self, *options):
        """Exit code, what was printed, results.json, and its steps by name."""
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'path'}:{os.environ['PATH']}",
            "OPENPI_DIR": str(self.folder / "openpi"),
            "PI0_QUANT_DIR": str(self.folder / "quant"),
            "PEERS_PYTHON": str(self.folder / "peer"),
        }
        folders = ["--work", self.folder / "work", "--output", self.folder / "output"]
        command = ["bash", SCRIPT, "--programs", self.folder / "programs", *folders, *map(str, options)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment)
        self.assertEqual(done.stderr, "")
        results = json.loads((self.folder / "output/results.json").read_text())
        return done.returncode, done.stdout, results, {step["name"]: step for step in results["steps"]}

    def test_one_that_fails_or_hangs_does_not_stop_the_rest(self):
        self.write("programs/tests/model_test", "echo 'test cases: 1 | 1 failed'; exit 42")
        # What it leaves behind holds its output open.
        self.write("programs/tests/quant_test", "echo begun; sleep 300 & setsid sleep 8 & wait")
        code, printed, results, steps = self.check("--limit", "quant_test=3")
        self.assertEqual(code, 1)
        self.assertEqual(
            {name: step["status"] for name, step in steps.items()},
            {"model_test": "failed", "quant_test": "timed out", "bench_skip": "passed", "bench_keep": "passed",
             "peers": "passed", "compiled": "failed"},
        )  # fmt: skip
        self.assertIn("exit code 42", steps["model_test"]["found"])
        self.assertIn("1 failed", steps["model_test"]["found"])
        self.assertEqual(steps["quant_test"]["last_lines"], ["begun"])
        self.assertLess(steps["quant_test"]["seconds"], 150)  # not the 300 that it would sleep
        self.assertIn("no C compiler", steps["compiled"]["found"])
        self.assertEqual(results["machine"]["GPU"], "A card, 1 MiB")
        self.assertEqual(results["bench"]["keep"]["unquantized"]["seconds"]["median"], 0.5)
        ratios = {"unquantized": {"eager": 2.0}, "with_statistics": {"original": 1.5}}
        for masked in ("skip", "keep"):
            for mode, expected in ratios.items():
                self.assertEqual(results["ratios"][f"ours, {masked} masked: {mode}"], expected)
        table = (self.folder / "output/results.txt").read_text()
        self.assertIn(table, printed)
        for expected in ("A card", "timed out", "2.00x", "unquantized 0.5000 s"):
            self.assertIn(expected, table)
        self.assertIn("quant_test: begun", printed)
        self.assertEqual(len(list((self.folder / "output").iterdir())), 3)

    def test_later_steps_have_what_the_deadline_leaves(self):
        self.write("programs/tests/model_test", "sleep 300")
        code, _, results, steps = self.check("--deadline", 12)  # of which it needs a part before the first step
        self.assertEqual(code, 1)
        self.assertEqual(steps["model_test"]["status"], "timed out")
        self.assertEqual({steps[name]["status"] for name in ("quant_test", "bench_keep", "compiled")}, {"not run"})
        self.assertIn("deadline", steps["compiled"]["found"])
        self.assertEqual(results["bench"]["skip"], {})

    def test_without_a_gpu_nothing_counts_as_passed(self):
        self.write("path/nvidia-smi", "exit 9")
        for name in ("model_test", "quant_test"):
            self.write(f"programs/tests/{name}", f"echo '  no GPU: not run'; {PASSES}")
        code, printed, results, steps = self.check()
        self.assertEqual(code, 1)
        self.assertEqual({step["status"] for step in steps.values()}, {"not run"})
        self.assertEqual(results["machine"]["GPU"], "none")
        self.assertIn("missing here: an NVIDIA GPU", printed)
        (self.folder / "programs/tests/model_test").unlink()
        self.assertIn("model_test is not there", self.check()[3]["model_test"]["found"])

    def test_all_that_passes(self):
        self.write("peer", BENCH + PEER.replace("*/peers.json", "*"))
        code, printed, results, _ = self.check("--repeats", 1)
        self.assertEqual(code, 0, printed)
        self.assertEqual({step["status"] for step in results["steps"]}, {"passed"})
        self.assertIn("7 assertions", results["steps"][0]["found"])
        self.assertEqual(list(self.check("--only", "quant_test,peers")[3]), ["quant_test", "peers"])

    def test_bad_usage(self):
        for options in (["--deadline"], ["--deadline", "soon"], ["--limit", "tests=5"], ["--only", "tests"]):
            done = subprocess.run(["bash", SCRIPT, *options], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
            self.assertEqual((done.returncode, done.stdout), (2, ""), options)
        done = subprocess.run(["bash", SCRIPT, "--help"], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        self.assertEqual(done.returncode, 0)
        self.assertIn("--deadline SECONDS", done.stdout)


if __name__ == "__main__":
    unittest.main()
