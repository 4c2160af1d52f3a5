"""pi0 calibrate: every linear, every denoise step, and percentiles that are NumPy's."""

import collections
import json
import pathlib
import signal
import subprocess
import unittest

import numpy as np

from support import GOLDENS, PROGRAMS, TemporaryFolderTest, one_instruction_set, read_tensor, run

STEPS = 3
PERCENTILES = [50, 99, 99.9, 100]


def read_header(path):
    data = pathlib.Path(path).read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def with_other_noise(path, target):
    """A copy of an input file whose noise is 1.5 times as large, backwards."""
    data = bytearray(pathlib.Path(path).read_bytes())
    size = int.from_bytes(data[:8], "little")
    begin, end = (8 + size + offset for offset in json.loads(data[8 : 8 + size])["noise"]["data_offsets"])
    data[begin:end] = (np.frombuffer(data[begin:end], np.float32)[::-1] * np.float32(1.5)).tobytes()
    target.write_bytes(data)
    return target


class CalibrateTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.output = self.folder / "calibration.safetensors"

    def calibrate(self, *arguments, expected=0):
        done = run("pi0", "calibrate", *arguments, "--output", self.output)
        self.assertEqual(done.returncode, expected, done.stderr)
        return done

    def make_checkpoint(self, config):
        checkpoint = self.folder / config
        done = run("pi0", "make-checkpoint", "--config", config, "--output", checkpoint)
        self.assertEqual(done.returncode, 0, done.stderr)
        return ["--config", config, "--checkpoint-dir", checkpoint, "--num-steps", STEPS, "--skip-masked", *one_instruction_set()]

    def linears(self, model):
        """Every linear that a request runs, with its number of input channels and its component."""
        done = run("pi0", "sweep", *model, "--synthetic", 1, "--pairs", "float32/float32", "--floor-repeats", 0,
                   "--output", self.folder / f"sweep_{model[1]}")  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = json.loads((self.folder / f"sweep_{model[1]}" / "float32__float32" / "stats.json").read_text())["layers"]
        return [row for row in rows if row["kind"] == "linear" and row["n_calls"] > 0]

    def test_every_linear_is_there_with_every_step(self):
        for config in ("pi05_droid", "pi0_droid"):
            model = self.make_checkpoint(config)
            done = self.calibrate(*model, "--synthetic", 2)
            header = read_header(self.output)
            meta = header.pop("__metadata__")
            linears = self.linears(model)
            self.assertEqual(len(header), 3 * len(linears))
            for row in linears:
                steps = STEPS if row["component"].startswith("action") else 1
                shapes = {"absmax": [steps], "mean_square": [steps], "percentiles": [steps, 3]}
                for statistic, shape in shapes.items():
                    name = f"{row['layer']}.{statistic}"
                    self.assertEqual(header[name]["shape"], [*shape, row["in_features"]], name)
                    values = read_tensor(self.output, name)
                    self.assertTrue(np.isfinite(values).all() and (values >= 0).all(), name)
                    self.assertTrue((values.max(axis=tuple(range(1, values.ndim))) > 0).all(), name)
            self.assertEqual({key: meta[key] for key in ("config", "precision", "num_steps", "n_observations")},
                             {"config": config, "precision": "bfloat16", "num_steps": str(STEPS), "n_observations": "2"})  # fmt: skip
            self.assertEqual(json.loads(meta["percentiles"]), [99, 99.9, 99.99])
            self.assertEqual(meta["checkpoint"], str(self.folder / config))
            self.assertIn("version", meta)
            self.assertIn(f"pass 1 of 1: 2 observations, {len(linears)} of {len(linears)} layers done", done.stderr)
            for component in ("vision", "language", "action_expert", "action_head"):
                self.assertRegex(done.stdout, rf"(?m)^{component} +\d+ +[\d.e+]+ +\d+$")

    def inputs_of(self, name, precision):
        """The options for two observations, and their activations by site and step as NumPy takes them from traces."""
        folder = GOLDENS / name
        files = [folder / "inputs.safetensors", with_other_noise(folder / "inputs.safetensors", self.folder / "b.safetensors")]
        model = ["--checkpoint-dir", folder, "--kernels", "reference", "--precision", precision, "--num-steps", STEPS]
        seen = collections.defaultdict(list)  # by site and step
        for file in files:
            trace = self.folder / "trace.safetensors"
            done = run("pi0", "infer", *model, "--inputs", file, "--output", self.folder / "actions", "--trace", trace)
            self.assertEqual(done.returncode, 0, done.stderr)
            actions = read_tensor(file, "noise")
            for step, velocity in enumerate(read_tensor(trace, "velocity")):
                seen["action_in_proj", step].append(actions)
                actions = actions + velocity * np.float32(-1 / STEPS)
                if name == "tiny_pi0":
                    seen["state_proj", step].append(read_tensor(file, "state"))
            seen["action_out_proj", 0].append(read_tensor(trace, "expert_output_step0")[:, -actions.shape[1] :])
            if name == "tiny_pi05":
                norm = "paligemma_with_expert.gemma_expert.model.layers.1.post_attention_layernorm.dense"
                seen[norm, 0].append(read_tensor(trace, "adarms_cond_step0"))
        return [*model, "--inputs", ",".join(map(str, files))], seen

    def test_percentiles_are_numpys_of_the_same_activations(self):
        for name, precision in (("tiny_pi05", "bfloat16"), ("tiny_pi0", "bfloat16"), ("tiny_pi0", "float32")):
            arguments, seen = self.inputs_of(name, precision)
            self.calibrate(*arguments, "--percentiles", ",".join(map(str, PERCENTILES)))
            self.assertEqual(len(seen), 2 * STEPS + 1 if name == "tiny_pi0" else STEPS + 2)
            for (site, step), tensors in seen.items():
                x = np.concatenate([tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors])
                values = np.abs(x.astype(np.float64))
                expected = np.percentile(values, PERCENTILES, axis=0).astype(np.float32)
                found = {key: read_tensor(self.output, f"{site}.{key}")[step]
                         for key in ("absmax", "mean_square", "percentiles")}  # fmt: skip
                np.testing.assert_array_equal(found["percentiles"], expected, f"{site} {step}")
                np.testing.assert_array_equal(found["absmax"], values.max(0).astype(np.float32), f"{site} {step}")
                np.testing.assert_allclose(found["mean_square"], np.mean(values**2, 0), 1e-6)

    def test_several_passes_write_the_same_file(self):
        model = self.make_checkpoint("pi05_droid")
        self.calibrate(*model, "--synthetic", 2)
        whole = self.output.read_bytes()
        done = self.calibrate(*model, "--synthetic", 2, "--memory-gib", 0.002)
        self.assertRegex(done.stderr, r"pass 3 of [3-9]: ")
        self.assertEqual(self.output.read_bytes(), whole)
        refused = self.calibrate(*model, "--synthetic", 12, "--memory-gib", 0.001, expected=1)
        self.assertIn("allow more memory or fewer observations", refused.stderr)
        self.assertEqual(self.output.read_bytes(), whole)

    def test_components_are_left_out(self):
        model = self.make_checkpoint("pi05_droid")
        done = self.calibrate(*model, "--synthetic", 1, "--skip-components", "vision,language,action_expert")
        header = read_header(self.output)
        self.assertEqual(json.loads(header.pop("__metadata__")["skip_components"]), ["vision", "language", "action_expert"])
        sites = {name.rsplit(".", 1)[0] for name in header}
        self.assertEqual(sites, {"action_in_proj", "action_out_proj", "time_mlp_in", "time_mlp_out"})
        self.assertNotIn("language ", done.stdout)

    def test_a_signal_leaves_no_file(self):
        model = self.make_checkpoint("pi05_droid")
        command = [PROGRAMS / "pi0", "calibrate", *model, "--synthetic", 40, "--output", self.output]
        process = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True)
        while "loading" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 1, errors)
        self.assertIn("pi0: stopped by SIGINT", errors)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["pi05_droid"])

    def test_refusals_say_what_is_expected(self):
        model = ["--checkpoint-dir", GOLDENS / "tiny_pi05"]
        self.assertIn("--observations, --synthetic or --inputs", self.calibrate(*model, expected=2).stderr)
        inputs = ["--inputs", GOLDENS / "tiny_pi05" / "inputs.safetensors"]
        for percentiles, words in (("99,99", "stands there twice"), ("99,101", "0 to 100"), ("most", "most")):
            refused = self.calibrate(*model, *inputs, "--percentiles", percentiles, expected=2)
            self.assertIn(words, refused.stderr)
        self.assertFalse(self.output.exists())
        self.output = self.folder / "none" / "file"
        self.assertIn(str(self.output), self.calibrate(*model, *inputs, expected=1).stderr)


if __name__ == "__main__":
    unittest.main()
