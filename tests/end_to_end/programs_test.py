"""The programs' command lines: answers equal the goldens, and everything wrong gets one clear error."""

import json
import os
import pathlib
import re
import shutil
import unittest

import numpy as np

from support import GOLDENS, POLICIES, TemporaryFolderTest, read, read_tensor, relative_rms, run

DROID = POLICIES / "pi05_droid"
TINY = GOLDENS / "tiny_pi05"


def policy_arguments(name):
    folder = POLICIES / name
    prompt = json.loads((folder / "case.json").read_text())["default_prompt"]
    return [
        "--config", name, "--checkpoint-dir", folder, "--kernels", "reference",
        *(["--default-prompt", prompt] if prompt else []),
    ]  # fmt: skip


class InferTest(TemporaryFolderTest):
    def test_bare_model_and_trace(self):
        for name in ("tiny_pi05", "tiny_pi0"):
            folder, actions, trace = GOLDENS / name, self.folder / "actions", self.folder / "trace"
            done = run(
                "pi0", "infer", "--checkpoint-dir", folder, "--inputs", folder / "inputs.safetensors",
                "--output", actions, "--trace", trace, "--precision", "float32",
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            expected = folder / "expected_float32.safetensors"
            for key in ("actions", "velocity", "image_features", "prefix_key_layer3"):
                self.assertLess(relative_rms(read_tensor(trace, key), read_tensor(expected, key)), 1e-5)
            np.testing.assert_array_equal(read_tensor(actions, "actions"), read_tensor(trace, "actions"))

    def test_a_seed_repeats_the_noise(self):
        def answer(seed):
            output = self.folder / "answer"
            done = run(
                "pi0", "infer", *policy_arguments("pi05_droid"), "--request", DROID / "request.msgpack",
                "--seed", seed, "--num-steps", 1, "--output", output,
            )  # fmt: skip
            self.assertEqual(done.returncode, 0, done.stderr)
            return read(output)["actions"]

        first = answer(5)
        np.testing.assert_array_equal(first, answer(5))
        self.assertFalse(np.array_equal(first, answer(6)))


class RefusalTest(TemporaryFolderTest):
    """Exit code 1, one line that names the thing, no output."""

    def refuse(self, checkpoint, *expected, config="pi05_droid", extra=()):
        output = self.folder / "answer.msgpack"
        done = run(
            "pi0", "infer", "--config", config, "--checkpoint-dir", checkpoint,
            "--request", DROID / "request.msgpack", "--default-prompt", "wipe", "--output", output, *extra,
        )  # fmt: skip
        self.assertEqual(done.returncode, 1, done.stderr)
        errors = [line for line in done.stderr.splitlines() if line.startswith("pi0: ")]
        self.assertEqual(len(errors), 1, done.stderr)
        for word in expected:
            self.assertIn(word, errors[0])
        self.assertFalse(output.exists())

        dry = run("pi0-server", "--config", config, "--checkpoint-dir", checkpoint, "--dry-run", *extra)
        self.assertEqual(dry.returncode, 1, dry.stderr)
        for word in expected:
            self.assertIn(word, dry.stderr)

    def copy(self):
        target = self.folder / "checkpoint"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(DROID, target)
        return target

    def test_whole_checkpoint_is_accepted(self):
        done = run("pi0-server", *policy_arguments("pi05_droid"), "--dry-run")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_bad_weights(self):
        weights = (DROID / "model.safetensors").read_bytes()
        size = int.from_bytes(weights[:8], "little")
        header = json.loads(weights[8 : 8 + size])

        def with_header(change):
            changed = json.loads(json.dumps(header))
            change(changed)
            text = json.dumps(changed).encode()
            return len(text).to_bytes(8, "little") + text + weights[8 + size :]

        def overlap(tensors):
            tensors["time_mlp_in.bias"]["data_offsets"] = tensors["time_mlp_out.bias"]["data_offsets"]

        def move_out(tensors):
            tensors["time_mlp_in.bias"]["data_offsets"] = [len(weights), len(weights) + 192]

        cases = {
            "truncated": (weights[:-1000], "truncated"),
            "header length": ((1 << 60).to_bytes(8, "little") + weights[8:], "announces a header"),
            "empty": (b"", "0 bytes"),
            "overlap": (with_header(overlap), "time_mlp_"),
            "out of file": (with_header(move_out), "time_mlp_in.bias"),
            "dtype": (with_header(lambda t: t["time_mlp_in.bias"].update(dtype="I32")), "time_mlp_in.bias"),
            "shape": (with_header(lambda t: t["time_mlp_in.bias"].update(shape=[4, 12])), "[4, 12]"),
            "renamed": (with_header(lambda t: t.update({"other": t.pop("time_mlp_in.bias")})), "time_mlp_in.bias"),
        }
        for name, (content, expected) in cases.items():
            with self.subTest(name):
                checkpoint = self.copy()
                (checkpoint / "model.safetensors").write_bytes(content)
                self.refuse(checkpoint, "model.safetensors" if name != "renamed" else str(checkpoint), expected)

    def test_missing_parts(self):
        checkpoint = self.copy()
        (checkpoint / "assets/droid/norm_stats.json").unlink()
        self.refuse(checkpoint, "norm_stats.json")

        checkpoint = self.copy()
        (checkpoint / "paligemma_tokenizer.model").unlink()
        self.refuse(checkpoint, "paligemma_tokenizer.model")

        checkpoint = self.copy()
        (checkpoint / "paligemma_tokenizer.model").write_bytes(b"no model")
        self.refuse(checkpoint, "paligemma_tokenizer.model")

        checkpoint = self.copy()
        (checkpoint / "model.safetensors").unlink()
        self.refuse(checkpoint, "model.safetensors")
        (checkpoint / "pytorch_model.bin").write_bytes(b"")
        self.refuse(checkpoint, "pytorch_model.bin")
        self.refuse(self.folder / "absent", "absent")

    def test_wrong_config(self):
        self.refuse(DROID, "pi05_drod", "pi05_droid_jointpos_polaris", config="pi05_drod")
        self.refuse(DROID, "architecture.json", config="pi0_droid")
        self.refuse(DROID, "cuda:77", extra=("--device", "cuda:77"))
        self.refuse(DROID, "tpu", extra=("--device", "tpu"))


class UsageTest(TemporaryFolderTest):
    def test_exit_codes(self):
        for arguments in (["--help"], ["--version"], ["infer", "--help"]):
            self.assertEqual(run("pi0", *arguments).returncode, 0)
        self.assertEqual(run("pi0-server", "--help").returncode, 0)
        for arguments in (
            [], ["fly"], ["infer"], ["infer", "--output", "x"], ["client"], ["list-layers", "--colour"],
            ["infer", "--inputs", TINY / "inputs.safetensors", "--request", DROID / "request.msgpack", "--output", "x"],
            ["infer", "--inputs", TINY / "inputs.safetensors", "--output", "x", "--num-steps", "0"],
            ["infer", "--inputs", TINY / "inputs.safetensors", "--output", "x", "--precision", "float64"],
        ):  # fmt: skip
            with self.subTest(arguments):
                self.assertEqual(run("pi0", *arguments).returncode, 2)
        for arguments in (
            ["--port", "70000"], ["--gpu", "-1", "--device", "cpu"], ["policy:other"], ["policy:checkpoint"],
            ["--env", "moon"], ["policy:default", "--config", "pi05_droid"],
        ):  # fmt: skip
            with self.subTest(arguments):
                self.assertEqual(run("pi0-server", *arguments).returncode, 2)

    def test_a_mistyped_word_is_named_with_what_it_was_meant_for(self):
        for program, arguments, words in (
            ("pi0-server", ["--inputfmt", "float16"], "unknown option '--inputfmt'; did you mean '--input-fmt'?"),
            ("pi0-server", ["--policy.confg=pi05_droid"], "unknown option '--policy.confg'; did you mean '--policy.config'?"),
            ("pi0-server", ["pi05_droid"], "policy: found 'pi05_droid', expected policy:checkpoint, policy:default"),
            ("pi0-server", ["--precision", "fp16"], "--precision: found 'fp16', expected bfloat16, float32"),
            ("pi0-server", ["--output-fmt", "bfloat61"], "did you mean 'bfloat16'?"),
            ("pi0-server", ["--port", "70000"], "--port: found '70000', expected a number from 0 to 65535"),
            ("pi0-server", ["--seed", "-3"], "--seed: found '-3', expected a whole number from 0"),
            ("pi0-server", ["-p", "8000"], "unknown option '-p'"),
            ("pi0-server", ["--api-key", "x"], "did you mean '--api-key-file'?"),
            ("pi0-server", ["--env", "DROYD"], "did you mean 'droid'?"),
            ("pi0-server", ["--log-level", "warn"], "did you mean 'warning'?"),
            ("pi0-server", ["--seed", "1e30"], "--seed: found '1e30'"),
            ("pi0-server", ["--gpu", "-2"], "--gpu: found '-2', expected a number from -1 to 1024"),
            ("pi0-server", ["--record", "False"], "--record"),
            ("pi0-server", ["--port"], "--port: 1 required 0 to 65535 missing"),
            ("pi0", ["--hlep"], "unknown option '--hlep'; did you mean '--help'?"),
            ("pi0", ["make-chekpoint"], "unknown subcommand 'make-chekpoint'; did you mean 'make-checkpoint'?"),
            ("pi0", ["make-checkpoint", "--ouput", "x"], "unknown option '--ouput'; did you mean '--output'?"),
            ("pi0", ["list-layers", "--config", "x", "--jsn"], "unknown option '--jsn'; did you mean '--json'?"),
        ):
            with self.subTest(arguments):
                done = run(program, *arguments)
                self.assertEqual(done.returncode, 2)
                self.assertIn(words, done.stderr)
        done = run("pi0", "list-layers", "--config", "pi05_driod")
        self.assertIn("unknown config 'pi05_driod'", done.stderr)
        self.assertIn("did you mean 'pi05_droid'?", done.stderr)

    def test_every_help_has_an_example_and_plain_types(self):
        commands = re.findall(r"^  ([a-z-]+) +[A-Z]", run("pi0", "--help").stdout.split("Subcommands:")[1], re.MULTILINE)
        self.assertIn("closed-loop", commands)
        for arguments in (["pi0-server", "--help"], *(["pi0", command, "--help"] for command in commands)):
            text = run(*arguments).stdout
            self.assertRegex(text, r"\nExample:\n  pi0", arguments)
            self.assertNotRegex(text, r"ENUM|->|TEXT:|INT:|FLOAT:", arguments)

    def test_a_library_that_fails_says_so_in_a_line(self):
        """libtorch's own attention fails where its kernels' capability is below what oneDNN picks."""
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
        for capability in ({}, {"ONEDNN_MAX_CPU_ISA": "AVX2"}):
            output = self.folder / "answer"
            done = run(
                "pi0", "infer", *policy_arguments("pi05_droid"), "--request", DROID / "request.msgpack", "--num-steps", 1,
                "--output", output, environment={**environment, **capability},
            )  # fmt: skip
            self.assertIn(done.returncode, (0, 1))
            self.assertNotIn("frame #", done.stderr)

    def test_families_and_spellings(self):
        for arguments in (
            ["--config", "pi05_droid", "--checkpoint-dir", DROID, "--gpu", "-1", "--openpi-dir", "x"],
            ["--config=pi05_droid", f"--checkpoint_dir={DROID}", "--gpu=-1", "--openpi_dir=x"],
            ["--env", "droid", "--default_prompt=pick_it up", "policy:checkpoint", "--policy.config=pi05_droid",
             f"--policy.dir={DROID}"],
            ["policy:checkpoint", "--policy.config", "pi05_droid", "--policy.dir", DROID, "--num_steps", "3"],
        ):  # fmt: skip
            with self.subTest(arguments):
                done = run("pi0-server", *arguments, "--dry-run")
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_list_layers(self):
        done = run("pi0", "list-layers", "--config", "pi05_droid", "--json")
        layers = json.loads(done.stdout)
        self.assertEqual(sum(layer["kind"] == "linear" for layer in layers), 458)
        self.assertEqual(set(layers[0]), {"layer", "component", "in_features", "out_features", "kind"})
        every = json.loads(run("pi0", "list-layers", "--config", "pi05_droid", "--json", "--all").stdout)
        kinds = [layer["kind"] for layer in every]
        self.assertEqual([kinds.count(kind) for kind in ("linear", "attention", "kv_cache", "vector")],
                         [458, 63, 18, 2 * (7 * 18 + 1) + 6 * 27 + 1 + 2])  # fmt: skip
        self.assertEqual([layer for layer in every if layer["kind"] in ("linear", "attention")], layers)
        text = run("pi0-server", "--list-layers", "--checkpoint-dir", TINY)
        self.assertEqual(text.returncode, 0, text.stderr)
        self.assertIn("paligemma_with_expert.gemma_expert.lm_head", text.stdout)

    def test_make_checkpoint(self):
        first, second = self.folder / "first", self.folder / "second"
        for folder, seed in ((first, 4), (second, 4)):
            done = run("pi0", "make-checkpoint", "--config", "pi0_droid", "--output", folder, "--seed", seed)
            self.assertEqual(done.returncode, 0, done.stderr)
        files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
        for path in map(pathlib.Path, ("model.safetensors", "assets/droid/norm_stats.json")):
            self.assertIn(path, files)
            self.assertEqual((first / path).read_bytes(), (second / path).read_bytes())
        again = run("pi0", "make-checkpoint", "--output", first)
        self.assertEqual(again.returncode, 1)
        self.assertIn("not empty", again.stderr)
        dry = run("pi0-server", "--config", "pi0_droid", "--checkpoint-dir", first, "--dry-run")
        self.assertEqual(dry.returncode, 0, dry.stderr)


if __name__ == "__main__":
    unittest.main()
