"""pi0 sweep: its statistics and action errors are those of single runs and of pi0-quant; what stops it loses a setting at most."""

import csv
import json
import random
import shlex
import signal
import subprocess
import time
import unittest

import numpy as np
from openpi_client import msgpack_numpy

from support import (
    GOLDENS,
    POLICIES,
    PROGRAMS,
    StatisticsTest,
    TemporaryFolderTest,
    golden_request,
    one_instruction_set,
    read,
    read_tensor,
    run,
    small_disk,
    wait_until,
    without_times,
)

NAME = "pi05_droid_jointpos_polaris"
FOLDER = POLICIES / NAME
WHOLE_MODEL = ["--config", NAME, "--checkpoint-dir", FOLDER, *one_instruction_set()]
MODEL = [*WHOLE_MODEL, "--skip-masked"]  # in half the time
FORMATS = ["float32", "float16", "bfloat16", "float8_e4m3", "float8_e5m2"]


class SweepTest(StatisticsTest, TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.output = self.folder / "sweep"

    def sweep(self, *arguments, model=MODEL):
        return run("pi0", "sweep", *model, "--output", self.output, *arguments)

    def summary(self):
        return json.loads((self.output / "summary.json").read_text())

    def record(self):
        records = self.folder / "records"
        records.mkdir()
        request = golden_request(FOLDER)
        (records / "000000.request.msgpack").write_bytes(msgpack_numpy.packb(request))
        return ["--observations", records]

    def test_a_recorded_request_has_the_originals_statistics_and_action_error(self):
        arguments = [*self.record(), "--kernels", "reference", "--quantize-attention", "none"]
        pair = ["--input-fmts", "float8_e4m3", "--output-fmts", "float16"]
        done = self.sweep(*arguments, *pair, model=WHOLE_MODEL)
        self.assertEqual(done.returncode, 0, done.stderr)
        found = json.loads((self.output / "float8_e4m3__float16" / "stats.json").read_text())
        expected = json.loads((FOLDER / "stats_float8_e4m3__float16.json").read_text())
        self.compare_statistics(found, expected)
        (entry,) = self.summary()
        self.assertEqual(entry["n_observations"], 1)
        self.assertEqual(entry["components"], {row["component"]: row["mean_rmse"] for row in found["components"]})
        exact = read(FOLDER / "response.msgpack")["actions"]
        rounded = read(FOLDER / "response_float8_e4m3__float16.msgpack")["actions"]
        squares = (exact - rounded) ** 2
        self.assertLess(abs(entry["action_rmse_robot"] / np.sqrt(squares.mean()) - 1), 0.25)
        self.assertEqual(len(entry["action_rmse_by_dimension"]), exact.shape[1])
        self.assertEqual(len(entry["action_rmse_by_step"]), exact.shape[0])

    def test_all_pairs_on_tensors_have_the_originals_statistics_and_action_errors(self):
        goldens = GOLDENS / "tiny_pi05"
        done = run("pi0", "sweep", "--checkpoint-dir", goldens, "--inputs", goldens / "inputs.safetensors",
                   "--output", self.output, "--kernels", "reference", "--quantize-attention", "none")  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        exact = read_tensor(goldens / "expected_bfloat16.safetensors", "actions")

        def golden_error(pair):
            rounded = read_tensor(goldens / "quant_bfloat16" / "actions.safetensors", pair)
            return np.sqrt(np.mean((exact - rounded) ** 2))

        for entry in self.summary():
            pair = f"{entry['input_fmt']}__{entry['output_fmt']}"
            error = golden_error(pair)
            if pair == "float32__float32":
                # Changes bfloat16's results only where its linears sum in another order than float32's, on some CPUs.
                # float16 changes sums by little as well; what either does to actions are roundings that turn.
                self.assertEqual(error, 0)
                self.assertLessEqual(entry["action_rmse"], 1.5 * golden_error("float16__float16"))
            else:
                # Rounding near a tie falls the other way on another CPU, which moves actions by as much.
                self.assertLessEqual(abs(entry["action_rmse"] - error), 0.5 * error, pair)
            found = json.loads((self.output / pair / "stats.json").read_text())
            expected = json.loads((goldens / "quant_bfloat16" / f"{pair}.json").read_text())
            self.compare_components(found, expected)
            self.assertEqual(entry["components"], {row["component"]: row["mean_rmse"] for row in found["components"]})
            self.assertIsNone(entry["action_rmse_robot"])
            self.assertEqual((len(entry["action_rmse_by_step"]), len(entry["action_rmse_by_dimension"])), exact.shape[1:])

    def test_figures_are_those_of_single_runs(self):
        records = self.record()
        done = self.sweep(*records, "--num-steps", 2, "--input-fmts", "float8_e5m2,bfloat16", "--output-fmts", "float16")
        self.assertEqual(done.returncode, 0, done.stderr)
        answers = {}
        for input_fmt in (None, "float8_e5m2", "bfloat16"):
            formats = [] if input_fmt is None else ["--input-fmt", input_fmt, "--output-fmt", "float16"]
            answer = self.folder / "answer.msgpack"
            request = records[1] / "000000.request.msgpack"
            done = run("pi0", "infer", *MODEL, "--num-steps", 2, "--request", request, "--output", answer, *formats)
            self.assertEqual(done.returncode, 0, done.stderr)
            answers[input_fmt] = read(answer)["actions"]
        for entry in self.summary():
            squares = (answers[entry["input_fmt"]] - answers[None]) ** 2
            np.testing.assert_allclose(entry["action_rmse_robot"], np.sqrt(squares.mean()), rtol=1e-9)
            np.testing.assert_allclose(entry["action_rmse_by_dimension"], np.sqrt(squares.mean(0)), rtol=1e-9)
            np.testing.assert_allclose(entry["action_rmse_by_step"], np.sqrt(squares.mean(1)), rtol=1e-9)

    def test_all_pairs_are_in_both_summaries(self):
        done = self.sweep("--synthetic", 1, "--num-steps", 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        summary = self.summary()
        pairs = [(first, second) for first in FORMATS for second in FORMATS]
        self.assertEqual([(entry["input_fmt"], entry["output_fmt"]) for entry in summary], pairs)
        with (self.output / "summary.csv").open() as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([float(row["action_rmse"]) for row in rows], [entry["action_rmse"] for entry in summary])
        self.assertEqual([float(row["rmse_vision"]) for row in rows], [entry["components"]["vision"] for entry in summary])

    def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_summary(self):
        arguments = ["--synthetic", 2, "--num-steps", 1, "--floor-repeats", 1, "--input-fmts", "float8_e4m3"]
        done = self.sweep(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        whole, self.output = self.summary(), self.folder / "interrupted"
        command = [PROGRAMS / "pi0", "sweep", *MODEL, "--output", self.output, *arguments, "--resume"]
        for results in (0, 0, 1, 2):  # that are there before the moment
            process = subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL)
            wait_until(lambda least=results: len([*self.output.glob("*/result.json")]) >= least, "results")
            time.sleep(random.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            process.wait()
            for file in self.output.glob("*/*.json"):
                json.loads(file.read_text())  # whole, or not there
        done = self.sweep(*arguments, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(without_times(self.summary()), without_times(whole))

    def test_a_signal_stops_it_between_observations_and_resume_goes_on(self):
        arguments = ["--synthetic", 3, "--num-steps", 1, "--input-fmts", "float8_e4m3"]
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self.output = self.folder / stop.name
            command = [*map(str, [PROGRAMS / "pi0", "sweep", *MODEL, "--output", self.output, *arguments])]
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            lines = [process.stderr.readline()]
            while "without quantization" not in lines[-1] and lines[-1]:
                lines.append(process.stderr.readline())
            process.send_signal(stop)
            errors = process.communicate(timeout=60)[1]
            self.assertEqual(process.returncode, 1, lines)
            self.assertIn(f"pi0: stopped by {stop.name}; --resume continues", errors)
        done = self.sweep(*arguments, "--resume")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.summary()), 5)

    def test_a_result_without_its_statistics_is_measured_again_but_only_to_resume(self):
        arguments = ["--synthetic", 1, "--num-steps", 1, "--input-fmts", "float16", "--output-fmts", "float16"]
        self.assertEqual(self.sweep(*arguments).returncode, 0)
        statistics = self.output / "float16__float16" / "stats.json"
        statistics.unlink()
        refused = self.sweep(*arguments)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("exists already", refused.stderr)
        self.assertEqual(self.sweep(*arguments, "--resume").returncode, 0)
        self.assertTrue(statistics.exists())

    def test_a_gone_reader_of_its_progress_ends_nothing(self):
        command = [PROGRAMS / "pi0", "sweep", *MODEL, "--output", self.output, "--synthetic", 1, "--num-steps", 1,
                   "--input-fmts", "float16", "--output-fmts", "float16,bfloat16"]  # fmt: skip
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {shlex.join(map(str, command))} 2>&1 | head -n 1"],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0)
        self.assertEqual(len(self.summary()), 2)

    def test_a_budget_that_no_layer_keeps_is_a_file_of_no_rules(self):
        arguments = ["--synthetic", 1, "--num-steps", 1]
        pair = ["--input-fmts", "float8_e4m3", "--output-fmts", "float16", "--skip-components", "vision,language,action_expert"]
        done = self.sweep(*arguments, *pair, "--sensitivity", "layers", "--budget", 1e-30)
        self.assertEqual(done.returncode, 0, done.stderr)
        rules, self.output = self.output / "rules.json", self.folder / "again"
        content = json.loads(rules.read_text())
        self.assertEqual([content["rules"], content["about"]["layers"]], [[], 0])
        self.assertEqual(len(content["about"]["left_out"]), content["about"]["layers_of"])
        done = self.sweep(*arguments, "--rules", rules)
        self.assertEqual(done.returncode, 0, done.stderr)
        (entry,) = self.summary()
        self.assertEqual(entry["action_rmse"], 0)

    def test_layers_are_ranked_and_a_budget_is_kept(self):
        arguments = ["--synthetic", 1, "--num-steps", 1, "--quantize-attention", "none"]
        pair = ["--input-fmts", "float8_e4m3", "--output-fmts", "float16", "--skip-components", "vision"]
        done = self.sweep(*arguments, *pair, "--sensitivity", "layers", "--budget", 0.02)
        self.assertEqual(done.returncode, 0, done.stderr)
        ranking = json.loads((self.output / "sensitivity.json").read_text())
        errors = [entry["action_rmse"] for entry in ranking]
        self.assertEqual(errors, sorted(errors, reverse=True))
        self.assertGreater(errors[0], 0)
        layers = {entry["layer"] for entry in ranking}
        self.assertIn("action_out_proj", layers)
        self.assertFalse([layer for layer in layers if layer.endswith("lm_head")])  # nothing reads them
        for entry in ranking:  # only that one was quantized
            self.assertEqual(list(entry["components"]), [entry["component"]])
        budget = json.loads((self.output / "budget.json").read_text())
        rules = json.loads((self.output / "rules.json").read_text())["rules"]
        self.assertEqual([rule["match"] for rule in rules], [entry["layer"] for entry in ranking[-budget["layers"] :]])
        self.assertLessEqual(budget["action_rmse"], 0.02)
        self.assertLess(0, budget["layers"])
        self.assertLess(budget["layers"], len(ranking))

        rules_file, self.output = self.output / "rules.json", self.folder / "again"
        done = self.sweep(*arguments, "--rules", rules_file)
        self.assertEqual(done.returncode, 0, done.stderr)
        (entry,) = self.summary()
        self.assertEqual(entry["action_rmse"], budget["action_rmse"])

    def test_operations_between_products_are_ranked_too(self):
        arguments = ["--synthetic", 1, "--num-steps", 1, "--floor-repeats", 0, "--skip-components", "vision,action_expert"]
        formats = ["--pairs", "float16/float16", "--kv-cache-fmt", "int8:row", "--vector-fmt", "float8_e4m3"]
        done = self.sweep(*arguments, *formats, "--sensitivity", "layers", "--budget", 100)
        self.assertEqual(done.returncode, 0, done.stderr)
        ranking = json.loads((self.output / "sensitivity.json").read_text())
        kinds = {entry["layer"]: entry["kind"] for entry in ranking}
        self.assertEqual(set(kinds.values()), {"linear", "attention", "kv_cache", "vector"})
        vectors = [layer for layer, kind in kinds.items() if kind == "vector"]
        self.assertIn("time_mlp_in.act", vectors)
        language = "paligemma_with_expert.paligemma.model.language_model"
        last = f"{language}.layers.3"
        self.assertEqual({layer for layer in vectors if layer.startswith(last)},
                         {f"{last}.input_layernorm", f"{last}.self_attn.rotary"})  # fmt: skip
        self.assertNotIn(f"{language}.norm", vectors)  # nothing reads it
        keys = {"kv_cache": {"match", "kv_cache_fmt"}, "vector": {"match", "vector_fmt"}}
        rules = json.loads((self.output / "rules.json").read_text())["rules"]
        self.assertEqual(len(rules), len(ranking))
        for rule in rules:
            self.assertEqual(set(rule), keys.get(kinds[rule["match"]], {"match", "input_fmt", "output_fmt"}), rule)

        rules_file, self.output = self.output / "rules.json", self.folder / "again"
        done = self.sweep(*arguments, "--rules", rules_file)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_what_rounding_alone_causes_is_measured_and_marked(self):
        done = self.sweep("--synthetic", 2, "--pairs", "float32/float32,float8_e4m3/float8_e4m3")
        self.assertEqual(done.returncode, 0, done.stderr)
        same, rough = self.summary()
        self.assertGreater(same["action_rmse_floor"], 0)
        self.assertEqual(same["action_rmse_floor"], rough["action_rmse_floor"])
        self.assertLess(same["action_rmse_floor"], rough["action_rmse"])
        self.assertEqual([same["below_floor"], rough["below_floor"]], [True, False])
        self.assertEqual([same["action_cosine"], same["action_rel_rmse"], same["action_rmse_se"]], [1, 0, 0])
        for less, more in (
            ("action_rel_rmse_floor", "action_rel_rmse"),
            ("action_cosine_worst", "action_cosine"),
            ("action_rmse", "worst_observation_rmse"),
        ):
            self.assertLess(0, rough[less])
            self.assertLess(rough[less], rough[more])
        self.assertEqual(list(rough["action_rmse_by_joint"].values()), rough["action_rmse_by_dimension"])
        self.assertEqual(rough["action_rmse_gripper"], rough["action_rmse_by_joint"]["gripper"])
        self.assertEqual(len(rough["velocity_rmse_by_denoise_step"]), 10)
        self.assertRegex(done.stdout, r"float32 / float32 +[0-9.]+/32/32 +0\* ")
        self.assertRegex(done.stdout, r"float8_e4m3 / float8_e4m3 +8/8/8 +[\d.]+  ")
        self.assertIn("floor: rounding alone changes actions", done.stdout)

        # A bfloat16 model's last bits are far above a float32 one's.
        self.output = self.folder / "float32"
        done = self.sweep("--synthetic", 1, "--pairs", "float32/float32", "--precision", "float32")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertLess(100 * self.summary()[0]["action_rmse_floor"], same["action_rmse_floor"])

    def test_a_dry_run_says_what_is_to_come_and_writes_nothing(self):
        done = self.sweep("--synthetic", 3, "--input-fmts", "float16,bfloat16", "--dry-run")
        self.assertEqual(done.returncode, 0, done.stderr)
        for words in ("settings: 10", "bfloat16__float8_e5m2", "observations: 3, 3 synthetic", "time: about", "GiB"):
            self.assertIn(words, done.stdout)
        self.assertFalse(self.output.exists())

    def test_shards_merge_to_the_summary_of_one_run(self):
        arguments = ["--synthetic", 1, "--num-steps", 1, "--input-fmts", "float8_e4m3"]
        done = self.sweep(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        whole, self.output = self.summary(), self.folder / "merged"
        folders = [self.folder / f"shard{index}" for index in (1, 2)]
        for index, folder in enumerate(folders, 1):
            done = run("pi0", "sweep", *MODEL, *arguments, "--output", folder, "--shard", f"{index}/2")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertFalse((folder / "summary.json").exists())
            self.assertEqual(len(list(folder.iterdir())), 3 if index == 1 else 2)
        missing = run("pi0", "merge", folders[0], "--output", self.output)
        self.assertEqual(missing.returncode, 1)
        self.assertIn("2 of 5 settings are missing", missing.stderr)
        done = run("pi0", "merge", *folders, "--output", self.output)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(without_times(self.summary()), without_times(whole))
        self.assertTrue((self.output / "float8_e4m3__float16" / "stats.json").exists())

        other = self.folder / "other"
        run("pi0", "sweep", *MODEL, *arguments, "--seed", 3, "--output", other, "--shard", "2/2")
        mixed = run("pi0", "merge", folders[0], other, "--output", self.folder / "mixed")
        self.assertEqual(mixed.returncode, 1)
        self.assertIn("seed", mixed.stderr)
        stats = next(folders[1].glob("*/stats.json"))
        stats.unlink()
        partial = run("pi0", "merge", *folders, "--output", self.folder / "partial")
        self.assertEqual(partial.returncode, 1)
        self.assertIn(f"{stats}: is missing", partial.stderr)
        self.assertFalse((self.folder / "partial").exists())
        for wrong in ("0/2", "3/2", "1", "1/2x", "a/b"):
            done = run("pi0", "sweep", *MODEL, *arguments, "--output", other, "--shard", wrong)
            self.assertEqual(done.returncode, 2, wrong)
            self.assertIn(wrong, done.stderr)

    def test_components_are_ranked(self):
        done = self.sweep("--synthetic", 1, "--num-steps", 1, "--sensitivity", "components",
                          "--input-fmts", "float8_e5m2", "--output-fmts", "float16")  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        ranking = json.loads((self.output / "sensitivity.json").read_text())
        self.assertEqual({entry["component"] for entry in ranking}, {"vision", "language", "action_expert", "action_head"})

    def test_layers_that_the_setting_cannot_change_are_not_ranked(self):
        rank = ["--synthetic", 1, "--num-steps", 1, "--input-fmts", "float32", "--output-fmts", "float32", "--sensitivity", "layers",
                "--floor-repeats", 0, "--skip-components", "vision,language"]  # fmt: skip
        kinds = {}
        for name, own in (("systolic", ["--accumulators", "systolic"]), ("vector", ["--vector-fmt", "float8_e4m3"])):
            self.output = self.folder / name
            self.assertEqual(self.sweep(*rank, *own).returncode, 0)
            kinds[name] = {entry["kind"] for entry in json.loads((self.output / "sensitivity.json").read_text())}
        self.assertEqual(kinds, {"systolic": {"linear"}, "vector": {"vector"}})
        self.output = self.folder / "together"
        self.assertEqual(self.sweep("--synthetic", 1, "--num-steps", 1, "--pairs", "float32/float32", "--vector-fmt", "float8_e4m3").returncode, 0)
        (entry,) = self.summary()
        self.assertEqual(set(entry["components_vector_rel_rmse"]), {"vision", "language", "action_expert", "action_head"})
        self.assertTrue(all(error > 0 for error in entry["components_vector_rel_rmse"].values()))

    def test_what_does_not_fit_is_refused_and_nothing_is_lost(self):
        first = ["--synthetic", 1, "--num-steps", 1, "--input-fmts", "bfloat16", "--output-fmts", "float16"]
        self.assertEqual(self.sweep(*first).returncode, 0)
        result = self.output / "bfloat16__float16" / "result.json"
        kept = result.read_text()
        empty = self.folder / "empty"
        empty.mkdir()
        for arguments, words in (
            (first, ["--resume"]),
            ([*first, "--resume", "--seed", 5], ["result.json", "seed", "5"]),
            ([*first, "--resume", "--skip-components", "vision"], ["skip_components"]),
            (["--observations", empty], ["empty", "request.msgpack"]),
            (["--synthetic", 1, "--input-fmts", "float12"], ["float12", "float8_e5m2"]),
            (["--synthetic", 1, "--rules", result, "--vector-fmt", "bfloat16"], ["--rules", "--vector-fmt"]),
            (["--synthetic", 1, "--accumulators", "bfloat16:0"], ["bfloat16:0", "4096"]),
            ([], ["--observations, --synthetic or --inputs"]),
            (["--synthetic", 1, "--sensitivity", "layers"], ["one setting"]),
            (["--synthetic", 1, "--sensitivity", "components", "--budget", 1], ["--budget", "layers"]),
            (["--synthetic", 1, "--rules", empty / "none.json"], ["none.json"]),
            (["--inputs", FOLDER / "model.safetensors"], ["model.safetensors", "images"]),
        ):
            done = self.sweep(*arguments)
            self.assertIn(done.returncode, (1, 2), arguments)
            for word in words:
                self.assertIn(word, done.stderr)
            self.assertEqual(result.read_text(), kept)
        result.write_text(kept[:40])
        done = self.sweep(*first, "--resume")
        self.assertEqual(done.returncode, 1)
        self.assertIn("result.json", done.stderr)


    def test_results_that_are_none_are_refused_by_name(self):
        arguments = ["--synthetic", 1, "--num-steps", 1, "--input-fmts", "bfloat16", "--output-fmts", "float16"]
        self.assertEqual(self.sweep(*arguments).returncode, 0)
        file = self.output / "bfloat16__float16" / "result.json"
        whole = json.loads(file.read_text())

        def changed(*path, value=None):
            result = json.loads(json.dumps(whole))
            place = result
            for key in path[:-1]:
                place = place[key]
            if value is None:
                del place[path[-1]]
            else:
                place[path[-1]] = value
            return json.dumps(result)

        for text, words in (
            ("[]", ["expected an object"]),
            ("[" * 200_000, ["nested more than 64 levels deep"]),
            (changed("entry"), ["'entry' is missing"]),
            (changed("entry", value={}), ["entry", "'input_fmt' is missing"]),
            (changed("entry", "components"), ["entry", "components"]),
            (changed("entry", "components", value=[1]), ["'components' is [1], expected an object of numbers and nulls"]),
            (changed("entry", "action_rmse"), ["entry", "action_rmse"]),
            (changed("entry", "action_rmse", value="0.5"), ["'action_rmse' is \"0.5\", expected a number or null"]),
            (changed("entry", "action_rms", value=1), ["unknown key 'action_rms'; did you mean 'action_rmse'?"]),
            (changed("entry", "input_fmt", value="float16"), ["'input_fmt' is \"float16\", expected \"bfloat16\""]),
            (changed("meta", value=[]), ["'meta' is [], expected an object"]),
            (changed("place", value=-1), ["'place' is -1, expected a non-negative integer"]),
            (changed("place", value=1), ["'place' is 1, expected less than 'of', 1"]),
            (changed("of", value="1"), ["'of' is \"1\""]),
        ):
            file.write_text(text)
            for done in (self.sweep(*arguments, "--resume"), run("pi0", "merge", self.output, "--output", self.folder / "merged")):
                self.assertEqual(done.returncode, 1, (words, done.stderr))
                for word in [str(file), *words, "remove the file"]:
                    self.assertIn(word, done.stderr)
            self.assertEqual(file.read_text(), text)
        file.write_text(changed("names", value={"layer": "a"}).replace('"entry": {', '"entry": {"layer": "a", '))
        done = self.sweep(*arguments, "--resume")
        self.assertEqual(done.returncode, 1)
        self.assertIn("result.json", done.stderr)
        file.write_text(json.dumps(whole))
        self.assertEqual(self.sweep(*arguments, "--resume").returncode, 0)

    def test_a_full_or_read_only_disk_is_named_and_costs_the_setting_in_hand(self):
        self.output.mkdir()
        arguments = ["--synthetic", 1, "--num-steps", 1, "--input-fmts", "float8_e4m3,float16"]
        with small_disk(self.output, 200_000) as change:
            done = self.sweep(*arguments)
            self.assertEqual(done.returncode, 1)
            self.assertIn("No space left on device", done.stderr)
            self.assertIn(str(self.output), done.stderr)
            finished = sorted(self.output.glob("*/result.json"))
            self.assertGreater(len(finished), 1)
            for file in self.output.glob("*/*"):
                json.loads(file.read_text())
            change("ro")
            done = self.sweep(*arguments, "--resume")
            self.assertEqual(done.returncode, 1)
            self.assertIn("Read-only file system", done.stderr)
            change("rw,size=10m")
            done = self.sweep(*arguments, "--resume")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"{len(finished)} of 10 settings are done already", done.stderr)
            self.assertEqual(len(self.summary()), 10)


if __name__ == "__main__":
    unittest.main()
