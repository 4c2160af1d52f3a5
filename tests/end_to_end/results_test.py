"""docs/results.md explains every key that the programs write, and no other; pandas reads what they write."""

import contextlib
import io
import json
import pathlib
import re
import unittest

import pandas as pd

from support import POLICIES, SIMULATOR, TemporaryFolderTest, run, serve

NAME = "pi05_droid_jointpos_polaris"
MODEL = ["--config", NAME, "--checkpoint-dir", POLICIES / NAME, "--num-steps", 2, "--skip-masked"]
PAGE = pathlib.Path(__file__).parent.parent.parent / "docs/results.md"


def dictionary():
    """The keys of each table, by its heading, or a line like "A layer:" before it."""
    tables, title = {}, None
    for line in PAGE.read_text().splitlines():
        if line.startswith("#") or re.fullmatch(r"(A \w+|`meta`):", line):
            title = line.strip("#: ")
        elif line.startswith("| `"):
            tables.setdefault(title, set()).update(re.findall(r"`([^`]+)`", line.split("|")[1]))
    return tables


class ResultsTest(TemporaryFolderTest):
    def pi0(self, command, *arguments, expected=0):
        with contextlib.chdir(self.folder):
            done = run("pi0", command, *arguments)
        self.assertEqual(done.returncode, expected, done.stderr)
        return done

    def json(self, path):
        return json.loads((self.folder / path).read_text())

    def make_results(self):
        sweep = ["sweep", *MODEL, "--synthetic", 2, "--floor-repeats", 2]
        rules = self.folder / "careful.json"
        rules.write_text(json.dumps({"rules": [{"match": "*", "input_fmt": "float16", "output_fmt": "float16"}]}))
        pairs = "float32/float32,float16/float16,float8_e4m3/float16"
        self.assertIn("next: pi0 report", self.pi0(*sweep, "--pairs", pairs, "--output", "sweep").stderr)
        self.pi0(*sweep, "--rules", rules, "--output", "with_rules")
        self.pi0("calibrate", *MODEL, "--synthetic", 1, "--output", "calibration.safetensors")
        self.pi0(*sweep, "--pairs", "mxfp4/int4:group128/bfloat16", "--kv-cache-fmt", "int8:row", "--vector-fmt", "bfloat16",
                 "--rotate", "--clip", 99.9, "--smooth", 0.5, "--calibration", "calibration.safetensors", "--accumulators", "bfloat16:32", "--noise",
                 "relative:0.01", "--split-errors", "--output", "scaled")  # fmt: skip
        one = ["--pairs", "float8_e4m3/float16", "--sensitivity"]
        self.pi0(*sweep, *one, "components", "--output", "components")
        self.pi0(*sweep, *one, "layers", "--skip-components", "vision,language", "--budget", 0.02, "--output", "sensitivity")
        with serve(*MODEL, "--stats-output", self.folder / "served.json") as server:
            server.stop()
        simulator = (f"{SIMULATOR} {{host}} {{port}} 1 {{episodes}} {{output_dir}} say-nothing; "
                     "case {output_dir} in *scenebad) exit 1;; *sceneodd) echo 7/5;; "
                     "*rules*scenelast) pkill -KILL -f '[/]pi0-server --.* --port {port} ';; "
                     "*) printf 'True 1\\nFalse 2\\n';; esac")  # fmt: skip
        self.pi0("closed-loop", *MODEL, "--unquantized", "--pairs", "float8_e4m3/float16", "--rules", rules, "--scenes",
                 "good,bad,odd,last", "--episodes", 2, "--episode-regex", r"^(\w+) \d", "--score-regex", r"(\d)$",
                 "--eval-command", simulator, "--output", "loops", expected=1)  # fmt: skip
        self.pi0("bench", *MODEL, "--repeats", 1, "--warmup", 0, "--json", "bench.json")
        (loop,) = (self.folder / "loops").iterdir()
        loop.rename(self.folder / "loop")

    def check(self, title, objects, not_here=()):
        found = {key for content in objects for key in content}
        self.assertEqual(found, dictionary()[title] - set(not_here), title)

    def test_every_key_is_explained_and_ten_questions_have_answers(self):
        self.make_results()
        entries = [entry for path in ("sweep", "with_rules", "scaled") for entry in self.json(f"{path}/summary.json")]
        entries += [entry for path in ("components", "sensitivity") for entry in self.json(f"{path}/sensitivity.json")]
        self.check("An entry of a sweep", entries)
        budget = self.json("sensitivity/budget.json")
        self.assertLessEqual(dictionary()["`budget.json` and `rules.json`"], set(budget))
        self.assertEqual(set(self.json("sensitivity/rules.json")["about"]),
                         {"made_by", "budget", "action_rmse", "layers", "layers_of", "left_out"})  # fmt: skip
        self.assertEqual(set(budget["left_out"][0]), {"layer", "component", "action_rmse", "why"})
        self.check("`result.json` of a sweep", [self.json("sweep/float16__float16/result.json")])
        statistics = [json.loads(path.read_text()) for path in self.folder.glob("**/stats.json")]
        statistics.append(self.json("served.json"))
        self.check("Statistics", statistics)
        self.check("A layer", [layer for each in statistics for layer in each["layers"]])
        self.check("A component", [row for each in statistics for row in each["components"]])
        self.check("`meta`", [each["meta"] for each in statistics])
        loop = self.json("loop/summary.json")
        self.check("A setting of a closed loop", loop, ["weight_fmt", "kv_cache_fmt", "vector_fmt", "rotate", "smooth", "clip", "accumulator", "noise"])
        self.check("A scene", [scene for entry in loop for scene in entry["by_scene"].values()])
        self.assertEqual({key for entry in loop for scene in entry["by_scene"].values() for key in scene.get("requests", {})},
                         {"answered", "refused", "failed", "dropped"})  # fmt: skip

        self.check("A mode", [self.json("bench.json")])

        self.pi0("report", "sweep", "sensitivity", "loop", "bench.json", "--output", "report.html")
        patterns = "|".join(re.sub("<[^>]+>", ".+", name) for name in dictionary()["Columns"])
        for path in self.folder.glob("**/*.csv"):
            columns = pd.read_csv(path).columns
            tables = ["An entry of a sweep", "A setting of a closed loop"]
            if path.name.startswith("report."):
                tables += ["CSV files of `pi0 report`", "A layer", "A component", "A scene"]
            known = set().union(*(dictionary()[table] for table in tables))
            self.assertEqual([name for name in columns if name not in known and not re.fullmatch(patterns, name)], [], path)
        for path in self.folder.glob("**/s*y.json"):  # summaries and rankings
            self.assertEqual(len(pd.read_json(path)), len(json.loads(path.read_text())))

        (lines,) = re.findall(r"```python\n(.+?)```", PAGE.read_text(), re.DOTALL)
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(io.StringIO()) as output:
            exec(lines, {})  # noqa: S102
        self.assertIn("self_attn", output.getvalue())
        self.assertIn("joint_rmse_gripper", output.getvalue())


if __name__ == "__main__":
    unittest.main()
