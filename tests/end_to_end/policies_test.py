"""Every recorded policy through the programs: openpi's answers, seeds, metadata, default checkpoints."""

import json
import os
import shlex
import unittest

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from support import (
    MORE_POLICIES, POLICIES, StatisticsTest, TemporaryFolderTest, golden_request, make_checkpoint, policy_case, read,
    recorded_policies, relative_rms, run, serve,
)  # fmt: skip

DEFAULTS = {  # openpi's scripts/serve_policy.py: environment, folder of openpi's bucket, a golden of its config
    "aloha": ("pi05_base", POLICIES / "pi05_aloha"),
    "aloha_sim": ("pi0_aloha_sim", MORE_POLICIES / "aloha_sim_one_camera"),
    "droid": ("pi05_droid", POLICIES / "pi05_droid"),
    "libero": ("pi05_libero", MORE_POLICIES / "pi05_libero"),
}


OPENPI_COMMAND_LINES = {  # of openpi's READMEs, and what else its tyro.cli(Args) takes;
    # and whose policy of DEFAULTS is served
    "--env=DROID": "droid",
    "--env ALOHA_SIM": "aloha_sim",
    "--env ALOHA --default_prompt='take the toast out of the toaster'": "aloha",
    "--env LIBERO": "libero",
    "policy:checkpoint --policy.config=pi05_droid --policy.dir=gs://openpi-assets/checkpoints/pi05_droid": "droid",
    "policy:checkpoint --policy.config=pi05_libero --policy.dir={home}/openpi-assets/checkpoints/pi05_libero": "libero",
    "--env LIBERO policy:checkpoint --policy.config pi05_libero --policy.dir {home}/openpi-assets/checkpoints/pi05_libero": "libero",
    "--port 8001 --record --env DROID policy:default": "droid",
    "--port=8001 --no-record --default-prompt None policy:default": "aloha_sim",
    "--record policy:checkpoint --policy.config pi05_droid --policy.dir gs://openpi-assets/checkpoints/pi05_droid": "droid",
    "policy:default --env=droid --default_prompt wave": "droid",
}


class PoliciesTest(StatisticsTest, TemporaryFolderTest):
    def arguments(self, folder):
        case = policy_case(folder)
        place = self.folder / folder.name
        checkpoint = place if place.exists() else make_checkpoint(folder, place)
        prompt = ["--default-prompt", case["default_prompt"]] if case["default_prompt"] else []
        return ["--config", case["config"], "--checkpoint-dir", checkpoint, "--kernels", "reference", *prompt]

    def infer(self, folder, *extra):
        output = self.folder / "answer.msgpack"
        done = run(
            "pi0", "infer", *self.arguments(folder), "--request", folder / "request.msgpack",
            "--noise", folder / "noise.safetensors", "--output", output, *extra,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        return read(output)

    def test_answers_are_those_of_openpi(self):
        self.assertEqual(len(recorded_policies()), 16)
        for folder in recorded_policies():
            with self.subTest(folder.name):
                answer, expected = self.infer(folder), read(folder / "response.msgpack")
                self.assertEqual(list(answer), list(expected))
                self.assertEqual(answer["actions"].dtype, expected["actions"].dtype)
                self.assertEqual(answer["actions"].shape, expected["actions"].shape)
                self.assertLess(relative_rms(answer["actions"], expected["actions"]), 2e-2)

    def test_quantized_answers_and_statistics(self):
        compared = 0
        for folder in recorded_policies():
            for expected in folder.glob("response_*.msgpack"):
                pair = expected.stem.removeprefix("response_")
                with self.subTest(folder.name, pair=pair):
                    stats = self.folder / "stats.json"
                    input_fmt, output_fmt = pair.split("__")
                    answer = self.infer(
                        folder, "--input-fmt", input_fmt, "--output-fmt", output_fmt,
                        "--quantize-attention", "none", "--stats-output", stats,
                    )  # fmt: skip
                    self.assertLess(relative_rms(answer["actions"], read(expected)["actions"]), 0.1)
                    golden = json.loads((folder / f"stats_{pair}.json").read_text())
                    self.compare_statistics(json.loads(stats.read_text()), golden)
                    compared += 1
        self.assertEqual(compared, 4)

    def test_a_seeded_server_repeats_a_seeded_openpi(self):
        folder = MORE_POLICIES / "seeded_droid"
        with serve(*self.arguments(folder), "--seed", policy_case(folder)["seed"]) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            answers = []
            for i in range(3):
                answers.append(client.infer(read(folder / "request.msgpack"))["actions"])
                self.assertLess(relative_rms(answers[i], read(folder / f"response_{i}.msgpack")["actions"]), 2e-2)
            self.assertGreater(relative_rms(answers[0], answers[1]), 5e-2)

    def test_metadata_and_default_prompt_over_the_wire(self):
        for name, metadata in (("pi0_aloha_towel", {"reset_pose": [0, -1.5, 1.5, 0, 0, 0]}), ("aloha_sim_one_camera", {})):
            folder = MORE_POLICIES / name
            with serve(*self.arguments(folder)) as server:
                client = WebsocketClientPolicy("127.0.0.1", server.port)
                sent = client.get_server_metadata()
                self.assertEqual({**sent, **metadata}, sent)
                answer = client.infer(golden_request(folder))["actions"]
                self.assertLess(relative_rms(answer, read(folder / "response.msgpack")["actions"]), 2e-2)
                request = golden_request(folder)
                request["images"]["cam_top"] = request["images"]["cam_high"]
                with self.assertRaisesRegex(RuntimeError, "images: found the camera 'cam_top'"):
                    client.infer(request)

    def test_default_checkpoints(self):
        home = self.folder / "home"
        environment = {**os.environ, "OPENPI_DATA_HOME": str(home)}
        for env, (name, folder) in DEFAULTS.items():
            missing = run("pi0-server", "--env", env, "--dry-run", environment=environment)
            self.assertEqual(missing.returncode, 1)
            for word in (str(home), f"gsutil -m cp -r gs://openpi-assets/checkpoints/{name}"):
                self.assertIn(word, missing.stderr)
            make_checkpoint(folder, home / "openpi-assets/checkpoints" / name)
            found = run("pi0-server", "--env", env, "--dry-run", environment=environment)
            self.assertEqual(found.returncode, 0, found.stderr)
            self.assertIn(policy_case(folder)["config"], found.stderr)
        found = run("pi0-server", "--dry-run", environment=environment)
        self.assertIn("policy pi0_aloha_sim", found.stderr)
        for line, env in OPENPI_COMMAND_LINES.items():
            found = run("pi0-server", *shlex.split(line.format(home=home)), "--dry-run", environment=environment)
            self.assertEqual(found.returncode, 0, found.stderr)
            self.assertIn(f"policy {policy_case(DEFAULTS[env][1])['config']}", found.stderr)
        found = run("pi0-server", "--env", "DROIDS", "--dry-run", environment=environment)
        self.assertEqual(found.returncode, 2)
        self.assertIn("DROIDS", found.stderr)
        found = run("pi0-server", "--env", "DROID", "--record", "--no-record", "--dry-run", environment=environment)
        self.assertEqual(found.returncode, 2)

    def test_bucket_address(self):
        address = "gs://openpi-assets/checkpoints/pi05_droid"
        environment = {**os.environ, "OPENPI_DATA_HOME": str(self.folder)}
        line = ["policy:checkpoint", "--policy.config=pi05_droid", f"--policy.dir={address}"]
        done = run("pi0-server", *line, environment=environment)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"gsutil -m cp -r {address}", done.stderr)

    def test_a_policy_and_robot_of_ones_own(self):
        folder = MORE_POLICIES / "pi0_libero_long"
        mine = json.loads((POLICIES.parents[2] / "configs/policies/pi0_libero.json").read_text())
        mine["robot"] = {
            "cameras": [
                {"input": "base_0_rgb", "field": "front"},
                {"input": "left_wrist_0_rgb", "field": "hand", "optional": True},
                {"input": "right_wrist_0_rgb"},
            ],
            "image_layout": "any",
            "state": [{"field": "arm", "size": 7}, {"field": "gripper", "size": 1}],
            "action_size": 7,
        }
        config = self.folder / "mine.json"
        config.write_text(json.dumps(mine))
        recorded = golden_request(folder)
        request = {
            "front": recorded["observation/image"], "hand": recorded["observation/wrist_image"],
            "arm": recorded["observation/state"][:7], "gripper": float(recorded["observation/state"][7]),
            "prompt": recorded["prompt"], "noise": recorded["noise"],
        }  # fmt: skip
        arguments = self.arguments(folder)[2:]
        with serve("--config-file", config, *arguments) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            mine = client.infer(request)["actions"]
            self.assertEqual(client.infer({k: v for k, v in request.items() if k != "hand"})["actions"].shape, (50, 7))
            with self.assertRaisesRegex(RuntimeError, "arm: missing"):
                client.infer({k: v for k, v in request.items() if k != "arm"})
        np.testing.assert_array_equal(mine, self.infer(folder)["actions"])


if __name__ == "__main__":
    unittest.main()
