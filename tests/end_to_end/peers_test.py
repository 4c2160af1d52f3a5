"""tools/compare_peers.sh and tools/vla_cpp.py with programs that stand in for the peer's, and for `pi0 bench`."""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import unittest
from unittest import mock

from gpu_check_test import BENCH, PI0
from support import PATIENCE_S, PROGRAMS, TemporaryFolderTest

TOOLS = pathlib.Path(__file__).resolve().parent.parent.parent / "tools"
sys.path.insert(0, str(TOOLS))
import peers
import vla_cpp

VLA_BENCH = """
echo "vla(pi05): hidden=2048 chunk=${chunk:-15} steps=10 max_len=200 matmul_weights=BF16"
echo "vla(pi05): backend = CPU ($VLA_N_THREADS threads)"
echo "pi05_droid.gguf: min 1000.0 ms  p50 1500.0 ms  p90 2000.0 ms  vision 9.0 ms  (2 views)"
echo "$@" >"$0.arguments"
"""
# Writes what it was given as the model.
CONVERTER = """
import json, pathlib, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
config = json.loads((pathlib.Path(options["--ckpt"]) / "config.json").read_text())
with open(pathlib.Path(options["--ckpt"]) / "model.safetensors", "rb") as file:
    names = sorted(json.loads(file.read(int.from_bytes(file.read(8), "little"))))
stats = json.loads(pathlib.Path(options["--dataset-stats"]).read_text())
pathlib.Path(options["--out"]).write_text(json.dumps({"config": config, "names": names, "stats": stats}))
"""


class PeersTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        (self.folder / "vla/build").mkdir(parents=True)
        (self.folder / "vla/scripts").mkdir()
        self.model = self.folder / "vla/build/pi05_droid.gguf"
        self.model.write_text("made before")
        self.write("vla/build/vla-bench", VLA_BENCH)
        self.write("pi0", BENCH + PI0)

    def write(self, name, script):
        (self.folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (self.folder / name).chmod(0o755)

    def time_vla_cpp(self, **environment):
        """Exit code and errors of vla_cpp.py in this process, without measuring what the machine can do."""
        options = ["--json", self.folder / "vla_cpp.json", "--pi0", self.folder / "pi0", "--threads", 1]
        environment = {"VLA_CPP_DIR": str(self.folder / "vla"), **environment}
        errors = io.StringIO()
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(sys, "argv", ["vla_cpp.py", *map(str, options)]),
            mock.patch.object(peers, "gemm_rate", return_value=100.0),
            contextlib.redirect_stderr(errors),
        ):
            try:
                vla_cpp.main()
            except SystemExit as end:
                return end.code, errors.getvalue()
        return 0, errors.getvalue()

    def test_vla_cpp_is_compared(self):
        programs = {"PI0": str(self.folder / "pi0"), "PEERS_PYTHON": sys.executable, "OPENPI_DIR": "",
                    "VLA_CPP_DIR": str(self.folder / "vla"), "THREADS": "1"}  # fmt: skip
        done = subprocess.run(["bash", TOOLS / "compare_peers.sh"], capture_output=True, text=True, timeout=PATIENCE_S,
                              check=False, env={**os.environ, **programs})  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = {line[:38].strip(): line[38:].split() for line in done.stdout.splitlines()}
        self.assertEqual(rows["seconds"][-2:], ["vla_cpp", "/"])
        self.assertEqual(rows["ours, skip masked: unquantized"][-1], "3.00x")
        self.assertEqual(rows["peer: vla_cpp"][:2], ["1.5000", "1.0000"])
        self.assertNotIn("Only ours", done.stdout)
        arguments = (self.folder / "vla/build/vla-bench.arguments").read_text()
        self.assertEqual(arguments, f"--ckpt {self.model} --images 2 --tokens 23 --warmup 1 --reps 3\n")

    def test_another_model_is_refused(self):
        code, errors = self.time_vla_cpp(chunk="50")
        self.assertEqual(code, 1)
        self.assertIn("expected 'chunk=15 steps=10'", errors)
        self.assertIn("chunk=50", errors)
        self.assertFalse((self.folder / "vla_cpp.json").exists())

    def test_what_is_missing_is_named(self):
        (self.folder / "vla/build/vla-bench").unlink()
        code, errors = self.time_vla_cpp()
        self.assertEqual(code, 1)
        self.assertIn("vla-bench is not there", errors)
        self.assertIn("VLA_CPP_DIR is ''", self.time_vla_cpp(VLA_CPP_DIR="")[1])

    def test_the_model_is_made_of_random_weights(self):
        self.model.unlink()
        self.write("pi0", f'exec "{PROGRAMS}/pi0" "${{@/full/tiny}}"')
        (self.folder / "vla/scripts/convert_pi05_to_gguf.py").write_text(CONVERTER)
        code, errors = self.time_vla_cpp()
        self.assertEqual(code, 0, errors)
        made = json.loads(self.model.read_text())
        self.assertEqual((made["config"]["type"], made["config"]["chunk_size"]), ("pi05", 15))
        self.assertIn("action_in_proj.weight", made["names"])
        self.assertGreaterEqual(set(made["stats"]["action"]), {"mean", "std", "q01", "q99"})
        self.assertEqual(set(made["stats"]), {"observation.state", "action"})
        self.assertEqual(len(list(self.model.parent.iterdir())), 3)  # no checkpoint is left


if __name__ == "__main__":
    unittest.main()
