"""Checkpoints as people have them: what is refused, pi0 inspect, pi0 convert."""

import json
import shutil
import unittest

from openpi_client.websocket_client_policy import WebsocketClientPolicy

from support import GOLDENS, POLICIES, TemporaryFolderTest, golden_request, one_instruction_set, read, run, serve

NAME = "pi05_droid_jointpos_polaris"


class CheckpointsTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.checkpoint = self.folder / "checkpoint"
        shutil.copytree(POLICIES / NAME, self.checkpoint)

    def answer(self, checkpoint, *arguments, config=NAME):
        output = self.folder / "answer.msgpack"
        done = run(
            "pi0", "infer", "--config", config, "--checkpoint-dir", checkpoint, "--num-steps", 1,
            "--request", POLICIES / NAME / "request.msgpack", "--noise", POLICIES / NAME / "noise.safetensors",
            "--output", output, *arguments,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        return read(output)["actions"].tolist(), done.stderr

    def refusal(self, checkpoint, *arguments, config=NAME):
        done = run("pi0-server", "--config", config, "--checkpoint-dir", checkpoint, "--dry-run", *arguments)
        self.assertEqual(done.returncode, 1, done.stderr)
        return done.stderr

    def write_config(self, **values):
        (self.checkpoint / "config.json").write_text(json.dumps(values))

    def inspect(self, checkpoint):
        done = run("pi0", "inspect", checkpoint, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_config_json_must_agree_with_the_policy(self):
        self.write_config(
            action_dim=32, action_horizon=15, paligemma_variant="gemma_2b", action_expert_variant="gemma_300m",
            precision="bfloat16",
        )  # fmt: skip
        self.answer(self.checkpoint)
        for key, value in (("action_horizon", 50), ("action_dim", 7), ("paligemma_variant", "gemma_300m")):
            self.write_config(**{key: value})
            message = self.refusal(self.checkpoint)
            self.assertIn(f"{self.checkpoint / 'config.json'}: '{key}' is {value}, config {NAME} says", message)

    def test_lost_adapters_are_not_ignored(self):
        self.write_config(action_expert_variant="gemma_300m_lora")
        message = self.refusal(self.checkpoint)
        for part in ("config.json", "lost this checkpoint's LoRA adapters", "--allow-lost-lora"):
            self.assertIn(part, message)
        answer, log = self.answer(self.checkpoint, "--allow-lost-lora")
        self.assertIn("lost this checkpoint's LoRA adapters; running without them", log)
        self.assertEqual(answer, self.answer(POLICIES / NAME)[0])
        done = run("pi0", "convert", self.checkpoint, self.folder / "converted")
        self.assertEqual(done.returncode, 1)
        self.assertIn("lost this checkpoint's LoRA adapters", done.stderr)

    def test_convert_keeps_off_its_source(self):
        done = run("pi0", "convert", self.checkpoint, self.checkpoint / "new")
        self.assertEqual(done.returncode, 1)
        self.assertIn("lies in the checkpoint", done.stderr)
        done = run("pi0", "convert", "--lerobot-version", "0.4", self.checkpoint, self.folder / "new")
        self.assertIn("--lerobot-version needs a LeRobot checkpoint", done.stderr)
        self.assertFalse((self.folder / "new").exists())

    def test_messages_name_the_config(self):
        (self.checkpoint / "architecture.json").unlink()
        message = self.refusal(self.checkpoint, config="pi0_droid")
        self.assertIn("holds a Pi0.5 model, config pi0_droid says a Pi0 model", message)
        shutil.copy(POLICIES / NAME / "architecture.json", self.checkpoint)
        (self.checkpoint / "assets/droid").rename(self.checkpoint / "assets/trossen")
        message = self.refusal(self.checkpoint)
        self.assertIn(f"config {NAME} needs the statistics of 'droid', the checkpoint has those of: trossen", message)
        shutil.rmtree(self.checkpoint / "assets")
        self.assertIn("copy assets/ from the checkpoint that this one was made from", self.refusal(self.checkpoint))
        done = run("pi0-server", "--checkpoint-dir", self.checkpoint, "--dry-run")
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"pi0 inspect {self.checkpoint}", done.stderr)

    def test_autoregressive_policies(self):
        self.assertIn("autoregressive", self.refusal(self.checkpoint, config="pi0_fast_droid"))

    def test_inspect(self):
        self.write_config(action_horizon=15, paligemma_variant="gemma_2b")
        facts = self.inspect(self.checkpoint)
        self.assertEqual(facts["layout"], "openpi PyTorch")
        self.assertEqual(facts["model"], "Pi0.5")
        self.assertEqual((facts["action_dim"], facts["action_horizon"]), (32, 15))
        self.assertEqual(facts["parameters_of_dtype"], {"float32": facts["parameters"]})
        self.assertEqual([entry["asset_id"] for entry in facts["statistics"]], ["droid"])
        self.assertEqual(facts["served"], ["pi05_droid", NAME])
        self.assertEqual(facts["not_served"], {})
        self.write_config(paligemma_variant="gemma_2b_lora")
        facts = self.inspect(self.checkpoint)
        self.assertEqual(facts["served"], [])
        self.assertIn("LoRA", facts["not_served"][NAME])
        done = run("pi0", "inspect", self.checkpoint)
        self.assertEqual(done.returncode, 0, done.stderr)
        for line in ("openpi PyTorch", "Pi0.5", "horizon 15", "not served", "droid; state: "):
            self.assertIn(line, done.stdout)

    def test_converted_checkpoints_answer_alike(self):
        for precision in ("float32", "bfloat16"):
            with self.subTest(precision):
                output = self.folder / precision
                done = run("pi0", "convert", self.checkpoint, output, "--precision", precision)
                self.assertEqual(done.returncode, 0, done.stderr)
                expected = self.answer(self.checkpoint, "--precision", precision)[0]
                self.assertEqual(self.answer(output, "--precision", precision)[0], expected)
                self.assertEqual(self.inspect(output)["served"], ["pi05_droid", NAME])
        done = run("pi0", "convert", self.checkpoint, self.folder / "float32")
        self.assertEqual(done.returncode, 1)
        self.assertIn("exists and is not empty", done.stderr)

    def test_packed_checkpoints_answer_alike(self):
        packed, unpacked = self.folder / "packed", self.folder / "unpacked"
        plain = self.folder / "plain"
        for command in ([self.checkpoint, packed, "--packed", "--weight-fmts", "float8_e4m3,float16"], [packed, unpacked, "--precision", "bfloat16"],
                        [self.checkpoint, plain, "--precision", "bfloat16"]):  # fmt: skip
            done = run("pi0", "convert", *command)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((unpacked / "model.safetensors").read_bytes(), (plain / "model.safetensors").read_bytes())
        self.assertEqual(self.inspect(packed)["served"], ["pi05_droid", NAME])
        self.assertEqual(self.inspect(packed)["packed"], ["float16", "float8_e4m3"])
        self.assertIsNone(self.inspect(plain)["packed"])
        self.assertIn("rounded to float16, float8_e4m3 as well", run("pi0", "inspect", packed).stdout)
        self.assertEqual((packed / "model.safetensors").stat().st_mode & 0o222, 0)
        formats = ["--input-fmt", "float8_e4m3", "--output-fmt", "bfloat16", "--stats-output", self.folder / "stats.json"]
        kernels = one_instruction_set()

        def layers():
            return json.loads((self.folder / "stats.json").read_text())["layers"]

        for options in (kernels, ["--kernels", "reference"], [*kernels, *formats]):
            expected = self.answer(self.checkpoint, *options)[0]
            measured = layers() if options[-1] == formats[-1] else None
            self.assertEqual(self.answer(packed, *options)[0], expected, options)
            if measured is not None:
                self.assertEqual(layers(), measured)

    def test_a_checkpoint_that_is_changed_while_it_is_served_is_not_answered_from(self):
        place = shutil.copytree(self.checkpoint, self.folder / "served")
        with serve("--config", NAME, "--checkpoint-dir", place) as server:
            request = golden_request(POLICIES / NAME)
            WebsocketClientPolicy("127.0.0.1", server.port).infer(request)
            weights = place / "model.safetensors"
            content = weights.read_bytes()
            weights.unlink()
            weights.write_bytes(content)  # a new file of that name
            WebsocketClientPolicy("127.0.0.1", server.port).infer(request)
        with serve("--config", NAME, "--checkpoint-dir", place) as server:
            WebsocketClientPolicy("127.0.0.1", server.port).infer(request)
            weights.write_bytes(content)
            with self.assertRaisesRegex(RuntimeError, "model.safetensors: was changed while its weights are served"):
                WebsocketClientPolicy("127.0.0.1", server.port).infer(request)

    def test_a_damaged_packed_checkpoint_is_refused(self):
        packed = self.folder / "packed"
        done = run("pi0", "convert", self.checkpoint, packed, "--packed")
        self.assertEqual(done.returncode, 0, done.stderr)
        weights = packed / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.unlink()
        weights.write_bytes(content)
        message = self.refusal(packed)
        for part in (f"{weights}: tensor '", "' is damaged: its checksum", "pi0 convert --packed"):
            self.assertIn(part, message)

    def test_a_failed_conversion_leaves_nothing(self):
        (self.checkpoint / "architecture.json").unlink()  # the tensors are then too small
        output = self.folder / "output"
        done = run("pi0", "convert", self.checkpoint, output)
        self.assertEqual(done.returncode, 1)
        self.assertIn("holds a PaliGemma of width 64", done.stderr)
        self.assertFalse(output.exists())


class LayoutsTest(TemporaryFolderTest):
    """What make-checkpoint writes, convert turns into openpi's layout, and both answer."""

    def make(self, layout, *arguments):
        place = self.folder / layout
        done = run("pi0", "make-checkpoint", "--layout", layout, "--precision", "float32", "--output", place, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return place

    def convert(self, checkpoint, *arguments):
        output = self.folder / f"{checkpoint.name}_converted"
        shutil.rmtree(output, ignore_errors=True)
        done = run("pi0", "convert", checkpoint, output, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return output

    def actions(self, checkpoint, *arguments):
        output = self.folder / "output"
        done = run("pi0", "infer", "--checkpoint-dir", checkpoint, "--output", output, *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return output.read_bytes()

    def test_jax_checkpoints_equal_their_conversion(self):
        for name in ("pi05_tiny", "pi0_lora"):
            for precision in ("float32", "bfloat16"):
                with self.subTest(name, precision=precision):
                    golden = GOLDENS / "jax" / name
                    inputs = ["--inputs", golden / "inputs.safetensors", "--precision", precision]
                    expected = self.actions(golden, *inputs)
                    self.assertEqual(self.actions(self.convert(golden, "--precision", precision), *inputs), expected)
        facts = json.loads(run("pi0", "inspect", GOLDENS / "jax/pi0_lora/params", "--json").stdout)
        self.assertEqual((facts["layout"], facts["model"]), ("openpi JAX", "Pi0"))
        self.assertEqual(facts["lora_ranks"], {"action_expert": 4, "paligemma": 4})

    def test_every_layout_holds_the_same_weights(self):
        request = ["--config", NAME, "--num-steps", 1, "--request", POLICIES / NAME / "request.msgpack", "--noise",
                   POLICIES / NAME / "noise.safetensors"]  # fmt: skip
        made = {layout: self.make(layout, "--config", NAME) for layout in ("openpi", "jax", "lerobot")}
        expected = self.actions(made["openpi"], *request)
        for layout in ("jax", "lerobot"):
            converted = self.convert(made[layout])
            shutil.rmtree(converted / "assets")
            shutil.copytree(made["openpi"] / "assets", converted / "assets")
            (converted / "policy.json").unlink(missing_ok=True)
            self.assertEqual(self.actions(converted, *request), expected, layout)
        self.assertEqual(self.actions(made["jax"], *request), expected)

    def test_every_layout_is_served_for_every_kind_of_policy(self):
        for config in ("pi05_libero", "pi0_libero", "pi0_aloha_sim", "paligemma_diffusion_droid"):
            for layout in ("openpi", "jax", "lerobot"):
                with self.subTest(config, layout=layout):
                    place = self.make(layout, "--config", config)
                    named = [] if layout == "lerobot" else ["--config", config]
                    done = run("pi0-server", *named, "--checkpoint-dir", place, "--dry-run")
                    self.assertEqual(done.returncode, 0, done.stderr)
                    shutil.rmtree(place)

    def test_a_converted_lerobot_policy_needs_no_config(self):
        for policy in ("pi0", "pi05"):
            with self.subTest(policy):
                checkpoint = GOLDENS / "lerobot" / policy / "checkpoint"
                request = ["--request", GOLDENS / "lerobot/request_256x256.msgpack", "--num-steps", 2]
                converted = self.convert(checkpoint)
                self.assertEqual(self.actions(converted, *request), self.actions(checkpoint, *request))
                facts = json.loads(run("pi0", "inspect", converted, "--json").stdout)
                self.assertEqual((facts["layout"], facts["served"]), ("openpi PyTorch", ["none needed: the checkpoint describes its policy"]))

    def test_a_policy_of_ones_own(self):
        policy = json.loads((GOLDENS.parents[1] / "configs/policies/pi0_libero.json").read_text())
        config = self.folder / "mine.json"
        config.write_text(json.dumps({**policy, "action_horizon": 7, "asset_id": "mine"}))
        place = self.make("openpi", "--config-file", config)
        done = run("pi0-server", "--config-file", config, "--checkpoint-dir", place, "--dry-run")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue((place / "assets/mine/norm_stats.json").exists())


if __name__ == "__main__":
    unittest.main()
