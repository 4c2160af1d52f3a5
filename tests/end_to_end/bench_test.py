"""pi0 bench on a small checkpoint: every figure is there and hangs together. How long it takes is not tested."""

import json
import unittest

from support import POLICIES, TemporaryFolderTest, run

FOLDER = POLICIES / "pi05_droid"
MODEL = ["--config", "pi05_droid", "--checkpoint-dir", FOLDER]
E4M3 = ["--input-fmt", "float8_e4m3", "--output-fmt", "float16"]
SIZES = json.loads((FOLDER / "architecture.json").read_text())
PATCHES = 256  # of a picture


def linear(rows, inputs, outputs):
    return 2 * rows * inputs * outputs


def gemma_layer(config, rows, keys, keys_only=False):
    """One layer on `rows` tokens that attend to `keys`."""
    width, queries = config["width"], config["num_heads"] * config["head_dim"]
    key_or_value = linear(rows, width, config["num_kv_heads"] * config["head_dim"])
    if keys_only:
        return 2 * key_or_value
    projections = 2 * linear(rows, width, queries) + 2 * key_or_value
    return projections + 3 * linear(rows, width, config["mlp_dim"]) + 2 * linear(rows, queries, keys)


def flop(pictures, places, steps, observed=False):
    """Multiplications and additions in the matmuls of a request after the first, which computes what the flow time makes
    of the norms. `observed` leaves nothing of the prefix out that nobody reads."""
    vision, language, expert = SIZES["vision"], SIZES["paligemma"], SIZES["action_expert"]
    width, horizon = vision["width"], SIZES["action_horizon"]
    layer = 4 * linear(PATCHES, width, width) + 2 * linear(PATCHES, width, vision["mlp_dim"])
    layer += 2 * linear(PATCHES, width, PATCHES)  # attention
    picture = vision["depth"] * layer + linear(PATCHES, width, language["width"])

    prefix = pictures * PATCHES + places
    total = pictures * picture + (language["depth"] - 1) * gemma_layer(language, prefix, prefix)
    total += gemma_layer(language, prefix, prefix, keys_only=not observed)

    step = expert["depth"] * gemma_layer(expert, horizon, prefix + horizon)
    step += 2 * linear(horizon, SIZES["action_dim"], expert["width"])
    return total + steps * step


class BenchTest(TemporaryFolderTest):
    def bench(self, *arguments):
        output = self.folder / "bench.json"
        done = run("pi0", "bench", *MODEL, *arguments, "--repeats", 1, "--json", output)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(output.read_text()), done

    def check(self, record, mode):
        self.assertEqual(record["mode"], mode)
        seconds, stages = record["seconds"], record["stages"]
        self.assertGreater(seconds["min"], 0)
        for smaller, larger in (("min", "median"), ("median", "p95"), ("p95", "max")):
            self.assertLessEqual(seconds[smaller], seconds[larger])
        for name in ("wire", "transforms", "vision", "prefix", "denoise"):
            self.assertGreater(stages[name], 0, name)
        counting = [run["seconds"] for run in record["runs"] if run["counts"]]
        self.assertEqual(record["counted"], len(counting))
        used = sorted(counting or [run["seconds"] for run in record["runs"]])
        self.assertAlmostEqual(sum(stages.values()), used[(len(used) - 1) // 2], delta=1e-6)
        self.assertLessEqual(record["within_stages"]["denoise_step"], stages["denoise"])

        self.assertAlmostEqual(record["gflop_per_second"], record["flop"] / seconds["median"] / 1e9, places=6)
        best = record["gemm"]["gflop_per_second"]
        for one in record["runs"]:
            self.assertLessEqual(max(one["gemm_before"], one["gemm_after"]), best)
            self.assertAlmostEqual(sum(one["stages"].values()), one["seconds"], delta=1e-6)
            self.assertEqual(one["counts"], min(one["gemm_before"], one["gemm_after"]) >= 0.85 * best)
        for share in (record["gemm_share"], record["step_weights"]["share"], *record["stage_gemm_shares"].values()):
            self.assertTrue(0 < share < 1.5, share)
        self.assertGreater(record["peak_resident_gib"], 0.01)

    def test_unquantized_and_comparison(self):
        record, done = self.bench("--threads", 2, "--cameras", 3, "--prompt-tokens", 9)
        self.check(record, "unquantized")
        self.assertIn("seconds, median", done.stdout)
        self.assertIn(f"unquantized: {record['counted']} of {len(record['runs'])} runs counted", done.stdout)
        self.assertEqual(record["flop"], flop(3, SIZES["max_token_len"], SIZES["num_steps"]))
        self.assertEqual(record["within_stages"]["rounding"], 0)
        settings = record["settings"]
        for key, value in {
            "config": "pi05_droid", "precision": "bfloat16", "kernels": "fast", "threads": 2, "masked": "keep",
            "num_steps": 10, "cameras": 3, "prompt_tokens": 9, "batch": 1, "input_fmt": None, "output_fmt": None,
        }.items():  # fmt: skip
            self.assertEqual(settings[key], value, key)
        self.assertIn("pi0 ", settings["version"])
        self.assertIsNotNone(settings["instructions"])

        modes, done = self.bench("--all-modes", *E4M3, "--skip-masked", "--num-steps", 3, "--batch", 2)
        self.assertEqual(set(modes), {"unquantized", "without_statistics", "with_statistics", "ratios"})
        plain, rounded, observed = (modes[mode] for mode in ("unquantized", "without_statistics", "with_statistics"))
        for mode in ("unquantized", "without_statistics", "with_statistics"):
            self.check(modes[mode], mode)
            self.assertEqual(modes[mode]["settings"]["masked"], "skip")
            self.assertIn(mode, done.stdout)
        self.assertEqual(plain["flop"], 2 * flop(2, 23, 3))
        self.assertEqual(rounded["flop"], plain["flop"])
        self.assertEqual(observed["flop"], 2 * 2 * flop(2, 23, 3, observed=True))
        self.assertEqual((plain["settings"]["input_fmt"], rounded["settings"]["input_fmt"]), (None, "float8_e4m3"))
        self.assertGreater(rounded["within_stages"]["rounding"], 0)
        self.assertEqual(rounded["within_stages"]["statistics"], 0)
        self.assertGreater(observed["within_stages"]["statistics"], 0)
        self.assertLess(rounded["step_weights"]["gib"], plain["step_weights"]["gib"])
        self.assertGreater(observed["step_weights"]["gib"], plain["step_weights"]["gib"])
        cold, _ = self.bench("--warmup", 0)  # the first run computes the norms' modulation of all steps
        self.assertEqual(cold["step_weights"]["gib"], plain["step_weights"]["gib"])
        self.assertAlmostEqual(
            modes["ratios"]["with_statistics/unquantized"],
            observed["seconds"]["median"] / plain["seconds"]["median"],
        )

        first, second = self.folder / "first.json", self.folder / "second.json"
        first.write_text(json.dumps(record))
        second.write_text(json.dumps(modes))
        compared = run("pi0", "bench", "--compare", first, second)
        self.assertEqual(compared.returncode, 0, compared.stderr)
        ratio = plain["seconds"]["median"] / record["seconds"]["median"]
        for expected in ("first.json", "second.json", f"x{ratio:.2f}", "batch: 1 / 2", "the settings differ"):
            self.assertIn(expected, compared.stdout)
        first.write_text("{}")
        compared = run("pi0", "bench", "--compare", first, second)
        self.assertEqual(compared.returncode, 1)
        self.assertIn("first.json", compared.stderr)

    def test_medians_that_differ_by_more_than_their_spread(self):
        before, now = self.folder / "before.json", self.folder / "now.json"

        def compare(first, second):
            for path, scales in ((before, first), (now, second)):
                settings = {"version": path.stem, "threads": 1}  # a change of the program is what is measured
                stages = [{"vision": 0.02 * scale, "denoise": 0.01} for scale in scales]
                runs = [{"seconds": 0.04 * scale, "stages": one, "counts": True}
                        for scale, one in zip(scales, stages, strict=True)]  # fmt: skip
                path.write_text(json.dumps({"mode": "unquantized", "settings": settings,
                                            "runs": [*runs, {"seconds": 9, "stages": {}, "counts": False}]}))  # fmt: skip
            done = run("pi0", "bench", "--compare", before, now)
            self.assertEqual(done.returncode, 0, done.stderr)
            return [line for line in done.stdout.splitlines() if line.startswith("unquantized")][1:]

        slow, fast = [1.2, 1.0, 1.1, 1.0, 0.99, 1.01], [0.7, 0.5, 0.5, 0.5, 0.5, 0.95]
        self.assertEqual(compare(slow, fast), [
            "unquantized: 50.2 % faster, more than the spread: 20 ms (20 to 38) after 40.2 ms (39.6 to 48)",
            "unquantized, vision: 50.2 % faster, more than the spread: 10 ms (10 to 19) after 20.1 ms (19.8 to 24)",
            "unquantized, denoise: 0.0 % slower, within the spread: 10 ms (10 to 10) after 10 ms (10 to 10)",
        ])  # fmt: skip
        self.assertIn("101.0 % slower, more than the spread", compare(fast, slow)[0])
        fast[-1] = 1
        self.assertIn("50.2 % faster, within the spread", compare(slow, fast)[0])
        self.assertEqual(compare(slow, fast[:5]), [
            "unquantized: cannot be told from 6 and 5 runs that count; --repeats 6 or more",
        ])  # fmt: skip

    def test_one_mode_by_its_options_and_compared_with_an_earlier_one_of_the_same_settings(self):
        earlier, stats = self.folder / "earlier.json", self.folder / "stats.json"
        record, _ = self.bench(*E4M3, "--no-stats", "--num-steps", 1, "--threads", 1)
        self.check(record, "without_statistics")
        earlier.write_text(json.dumps(record))
        same = [*E4M3, "--num-steps", 1, "--compare", earlier]
        _, done = self.bench(*same, "--no-stats", "--threads", 1)
        self.assertRegex(done.stdout, r"against .*earlier.json:\nwithout_statistics: cannot be told from [01] and [01] runs")
        for arguments, words in (
            (["--no-stats", "--threads", 2], "was measured with threads 1, this run with 2"),
            (["--threads", 1], "has without_statistics and no with_statistics"),
        ):
            done = run("pi0", "bench", *MODEL, *same, *arguments)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"{earlier}: {words}", done.stderr)
            self.assertNotIn("warm-up", done.stderr)
        earlier.write_text("{}")
        done = run("pi0", "bench", *MODEL, *same)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"{earlier}: found no record", done.stderr)

        record, _ = self.bench("--stats-output", stats, "--num-steps", 1, "--kernels", "reference")
        self.check(record, "with_statistics")
        self.assertIsNone(record["settings"]["instructions"])
        self.assertEqual(json.loads(stats.read_text())["meta"]["requests"], 1 + len(record["runs"]))

    def test_bad_usage(self):
        self.assertEqual(run("pi0", "bench", "--help").returncode, 0)
        here = self.folder / "here.json"
        here.write_text("{}")
        for arguments in (
            [], ["--config", "pi05_droid"], [*MODEL, "--all-modes"], [*MODEL, "--no-stats"],
            [*MODEL, *E4M3, "--no-stats", "--all-modes"], [*MODEL, "--repeats", 0], [*MODEL, "--batch", 0],
            [*MODEL, "--cameras", 4], [*MODEL, "--prompt-tokens", 201], ["--compare", here],
            ["--compare", here, here, "--repeats", 2], ["--compare", here, self.folder / "absent.json"],
        ):  # fmt: skip
            with self.subTest(arguments):
                self.assertEqual(run("pi0", "bench", *arguments).returncode, 2)
        done = run("pi0", "bench", *MODEL, "--json", self.folder / "absent/bench.json")
        self.assertEqual(done.returncode, 1)
        self.assertIn("absent", done.stderr)


if __name__ == "__main__":
    unittest.main()
