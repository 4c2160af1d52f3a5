"""pi0 closed-loop --preset: what each preset runs, and what it refuses before anything starts.

The simulators themselves do not run here; simulator_options.json holds the options of their command lines.
"""

import json
import os
import pathlib
import re
import socket
import sys
import unittest

from support import GOLDENS, MORE_POLICIES, POLICIES, TemporaryFolderTest, make_checkpoint, policy_case, run

LOGS = pathlib.Path(__file__).with_name("simulator_logs")
OPTIONS = json.loads(pathlib.Path(__file__).with_name("simulator_options.json").read_text())
CONFIGS = GOLDENS.parent.parent / "configs"
PAIR = ["--input-fmts", "float16", "--output-fmts", "float16"]
# Policies that fit, and what each simulator's folder must hold.
FITTING = {
    "aloha_sim": MORE_POLICIES / "aloha_sim_one_camera",
    "libero": POLICIES / "pi0_libero",
    "polaris": POLICIES / "pi05_droid_jointpos_polaris",
    "sim_evals": POLICIES / "pi05_droid_jointpos_polaris",
}
NEEDED = {
    "aloha_sim": ["examples/aloha_sim/main.py"],
    "libero": ["examples/libero/main.py"],
    "polaris": ["scripts/eval.py", "PolaRiS-Hub"],
    "sim_evals": ["run_eval.py", "assets"],
    "reacher": ["client.py"],
}
REACHER = {
    "cameras": [
        {"input": "base_0_rgb", "field": "observation/image"},
        {"input": "left_wrist_0_rgb"},
        {"input": "right_wrist_0_rgb"},
    ],
    "image_layout": "any",
    "state": [{"field": "observation/state", "size": 2}],
    "action_size": 2,
}
DROID_POSITIONS = {
    "pi05_droid_jointpos_polaris",
    "pi0_droid_jointpos_polaris",
    "pi0_droid_jointpos_100k_polaris",
    "pi05_full_droid_finetune",
}


class PresetTest(TemporaryFolderTest):
    def setUp(self):
        super().setUp()
        self.programs = self.folder / "bin"
        self.programs.mkdir()
        self.output = self.folder / "results"
        self.environment = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}"}
        for variable in ("OPENPI_DIR", "POLARIS_DATA_PATH", "MUJOCO_GL"):
            self.environment.pop(variable, None)

    def model(self, preset):
        """Options of a server whose policy fits."""
        if preset == "reacher":
            policy, place = self.policy_file(REACHER), self.folder / "checkpoint"
            done = run("pi0", "make-checkpoint", "--config-file", policy, "--output", place)
            self.assertEqual(done.returncode, 0, done.stderr)
            return ["--config-file", policy, "--checkpoint-dir", place, "--num-steps", 1]
        folder, place = FITTING[preset], self.folder / f"{preset} checkpoint"
        if not place.exists():
            make_checkpoint(folder, place)
        return ["--config", policy_case(folder)["config"], "--checkpoint-dir", place, "--num-steps", 1]

    def policy_file(self, robot):
        """A policy of one's own, named mine."""
        file = self.folder / "mine.json"
        policy = json.loads((CONFIGS / "policies/pi05_libero.json").read_text())
        file.write_text(json.dumps({**policy, "robot": robot}))
        return file

    def script(self, name, text):
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def checkout(self, preset, leave_out=None):
        """A folder with what the preset looks for."""
        folder = self.folder / f"{preset} {{host}}"
        for path in NEEDED[preset]:
            if path != leave_out:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).touch()
        return folder

    def closed_loop(self, *arguments):
        return run("pi0", "closed-loop", *arguments, "--output", self.output, environment=self.environment)

    def refused(self, *arguments):
        """What is said; nothing has started."""
        done = self.closed_loop(*arguments)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertFalse(self.output.exists())
        return done.stderr

    def run_with_recorder(self, preset, *arguments):
        """The words of the command that ran, with the variables set for it in front."""
        self.output = self.folder / preset
        recorder = self.script("recorder", '#!/bin/sh\n[ "$1" = -c ] || echo MUJOCO_GL="$MUJOCO_GL" "$0" "$@"\n')
        self.script("uv", '#!/bin/sh\necho MUJOCO_GL="$MUJOCO_GL" "$0" "$@"\n')
        python = [] if preset in ("polaris", "sim_evals") else ["--python", recorder]
        self.closed_loop("--preset", preset, "--simulator-dir", self.checkout(preset), *python, *self.model(preset), *PAIR,
                         *arguments)  # fmt: skip
        (log,) = self.output.glob("*/*/eval_scene*.log")
        return log.read_text()

    def scene_after(self, file, preset, scene):
        """A scene's result after a simulator that leaves this file and plays nothing."""
        self.output = self.folder / file
        prints = self.script("prints", f'#!/bin/sh\n[ "$1" = -c ] || cat "{LOGS / file}"\n')
        self.script(
            "uv", f'#!/bin/sh\nfor word; do [ "$last" = --run-folder ] && cp "{LOGS / file}" "$word"; last=$word; done\n'
        )
        python = [] if preset == "polaris" else ["--python", prints]
        self.closed_loop("--preset", preset, "--simulator-dir", self.checkout(preset), *python, *self.model(preset), *PAIR,
                         "--scenes", scene)  # fmt: skip
        (summary,) = self.output.glob("*/summary.json")
        return json.loads(summary.read_text())[0]["by_scene"][scene]

    def check_options(self, text, known):
        """Every option of a command is one of the simulator's, and those that it cannot do without are there."""
        given = set(re.findall(r"--[a-z.-]+", text))
        self.assertLessEqual(given, {option.rstrip("=") for option in known})
        self.assertGreaterEqual(given, {option.rstrip("=") for option in known if option.endswith("=")})

    def test_commands_have_the_options_of_the_simulators(self):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            is_free = probe.connect_ex(("127.0.0.1", 8000)) != 0
        for preset, scene, words in (
            ("libero", "libero_goal", ["examples/libero/main.py --args.host localhost --args.port ", "MUJOCO_GL=egl",
                                       " --args.task-suite-name libero_goal --args.num-trials-per-task 7 "]),
            ("polaris", "DROID-Mine", ["run python scripts/eval.py --environment DROID-Mine --policy.host localhost ",
                                       " --rollouts 7\n"]),
            ("sim_evals", "3", ["run python run_eval.py --episodes 7 --scene 3 --headless\n"]),
        ):  # fmt: skip
            if preset == "sim_evals" and not is_free:
                continue  # another program has the only port; closed_loop_test skips then and says so
            log = self.run_with_recorder(preset, "--scenes", scene, "--episodes", 7)
            self.check_options(log, OPTIONS[preset]["options"])
            for word in words:
                self.assertIn(word, log)
            if preset != "sim_evals":  # which has no option for a folder
                self.assertIn(f"/videos/scene{scene}", log)

    def test_success_is_where_the_simulators_say_it(self):
        for file, expected in json.loads((LOGS / "expected.json").read_text()).items():
            with self.subTest(file=file):
                result = self.scene_after(file, expected["preset"], expected["scene"])
                self.assertEqual(result.get("episodes"), expected["succeeded"])
                self.assertEqual(result.get("scores", []), expected["scores"])
                self.assertEqual(result["n_success"], sum(expected["succeeded"]))
                self.assertEqual(result["n_episodes"], len(expected["succeeded"]))
                self.assertEqual(result["error"], "the server was asked for no actions")
                self.assertIsNone(result["success_rate"])  # and so it counts nowhere

    def test_the_environment_says_how_to_render(self):
        self.environment["MUJOCO_GL"] = "osmesa"
        self.assertIn("MUJOCO_GL=osmesa", self.run_with_recorder("libero", "--scenes", "libero_10"))

    def test_openpis_aloha_example_runs_once_per_episode_with_a_seed_each(self):
        """Its real main.py needs gym-aloha; this one has the same arguments and asks the server as it does."""
        example = self.folder / "openpi/examples/aloha_sim"
        example.mkdir(parents=True)
        fields = [option.removeprefix("--args.").replace("-", "_") for option in OPTIONS["aloha_sim"]["options"]]
        (example / "env.py").write_text(
            "from dm_control.rl.control import PhysicsError\n"
            "class AlohaSimEnvironment:\n"
            "    def __init__(self, seed): self.rewards, self._episode_reward = ([1, 4, 0], [0, 3, 2], [1])[seed], 0\n"
            "    def reset(self): self._episode_reward = 0\n"
            "    def apply_action(self, action):\n"
            "        self._episode_reward = max(self._episode_reward, self.rewards.pop(0))\n"
            "        if len(self.rewards) == 0 and self._episode_reward == 1: raise PhysicsError('it flew apart')\n"
        )
        (example / "main.py").write_text(
            "import dataclasses, pathlib, env\n"
            "from openpi_client import msgpack_numpy\n"
            "from openpi_client.websocket_client_policy import WebsocketClientPolicy\n"
            f"Args = dataclasses.make_dataclass('Args', [(name, object, None) for name in {fields}])\n"
            "def main(args):\n"
            "    assert args.task == 'gym_aloha/AlohaInsertion-v0'\n"
            "    environment = env.AlohaSimEnvironment(seed=args.seed)\n"
            "    client = WebsocketClientPolicy(args.host, args.port)\n"
            f"    request = msgpack_numpy.unpackb(pathlib.Path({str(FITTING['aloha_sim'] / 'request.msgpack')!r}).read_bytes())\n"
            "    while environment.rewards: environment.apply_action(client.infer(request)['actions'])\n"
            "    environment.reset()\n"
            "    (args.out_dir / f'out_{args.seed}.mp4').touch()\n"
        )
        modules = self.folder / "modules"
        (modules / "dm_control/rl").mkdir(parents=True)
        for package in ("dm_control", "dm_control/rl"):
            (modules / package / "__init__.py").touch()
        (modules / "dm_control/rl/control.py").write_text("class PhysicsError(RuntimeError): pass\n")
        for name in ("gym_aloha", "imageio_ffmpeg", "tyro"):
            (modules / f"{name}.py").touch()
        self.environment["PYTHONPATH"] = str(modules)
        self.environment["OPENPI_DIR"] = str(self.folder / "openpi")
        done = self.closed_loop("--preset", "aloha_sim", "--python", sys.executable, *self.model("aloha_sim"), *PAIR,
                                "--scenes", "AlohaInsertion-v0", "--episodes", 3)  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        (folder,) = self.output.iterdir()
        (entry,) = json.loads((folder / "summary.json").read_text())
        self.assertEqual(entry["success_rate"], 1 / 3)
        self.assertEqual(entry["by_scene"]["AlohaInsertion-v0"]["scores"], [4, 3, 0])
        self.assertEqual([pathlib.Path(video).name for video in entry["video_files"]], ["out_0.mp4", "out_1.mp4"])
        (log,) = folder.glob("*/eval_scene*.log")
        lines = [line for line in log.read_text().splitlines() if line.startswith(("episode", "scene"))]
        self.assertEqual(lines, ["episode 0: success, reward 4", "episode 1: failure, reward 3",
                                 "episode 2: failure, reward 0, it flew apart", "scene AlohaInsertion-v0: 1/3"])  # fmt: skip

    def test_a_folder_without_the_simulator_is_refused(self):
        for preset, paths in NEEDED.items():
            for path in paths:
                with self.subTest(preset=preset, path=path):
                    folder = self.checkout(preset, leave_out=path)
                    folder.mkdir(exist_ok=True)
                    (folder / path).unlink(missing_ok=True)
                    error = self.refused("--preset", preset, "--simulator-dir", folder, *self.model(preset))
                    self.assertIn(f"{folder} holds no {path}, expected ", error)
        for preset in FITTING:
            self.assertIn("needs --simulator-dir", self.refused("--preset", preset, *self.model(preset)))

    def test_an_interpreter_that_lacks_a_module_is_refused(self):
        for preset in ("aloha_sim", "libero"):
            command = ["--preset", preset, "--simulator-dir", self.checkout(preset), *self.model(preset)]
            error = self.refused(*command, "--python", "no-such-python")
            self.assertIn("--python no-such-python: found no such program", error)
            error = self.refused(*command, "--python", sys.executable)
            self.assertRegex(error, rf"--python {re.escape(sys.executable)}: cannot import \w+.*; install ")
        libero = self.folder / "libero/libero"
        libero.mkdir(parents=True)
        (libero.parent / "__init__.py").touch()
        (libero / "__init__.py").write_text("input('Where are your folders?')")
        self.environment["PYTHONPATH"] = str(self.folder)
        self.assertIn("set LIBERO_CONFIG_PATH", self.refused(*command, "--python", sys.executable))

    def test_a_missing_program_is_refused(self):
        self.environment["PATH"] = str(self.programs)
        (self.programs / "sh").symlink_to("/bin/sh")
        for preset in ("polaris", "sim_evals"):
            error = self.refused("--preset", preset, "--simulator-dir", self.checkout(preset), *self.model(preset))
            self.assertIn("the program uv is not in $PATH", error)

    def test_policies_that_do_not_answer_the_client_are_refused(self):
        """By name, and those that are named in the error pass."""
        fitting = set()
        for preset, config, words in (
            ("libero", "pi05_droid", ["observation/exterior_image_1_left: missing", "pi05_libero"]),
            ("aloha_sim", "pi0_libero", ["observation/image: missing", "pi0_aloha_sim"]),
            ("aloha_sim", "pi05_aloha", ["needs a prompt", "--default-prompt"]),
            ("reacher", "pi0_libero", ["observation/wrist_image: missing", "pi0_reacher.json"]),
            ("polaris", "pi0_libero", ["observation/image: missing", *DROID_POSITIONS]),
            *((preset, config, ["does not answer joint positions", *DROID_POSITIONS])
              for preset, config in (("polaris", "pi05_droid"), ("polaris", "pi05_droid_finetune"),
                                     ("sim_evals", "pi0_droid"), ("sim_evals", "paligemma_diffusion_droid"))),
        ):  # fmt: skip
            error = self.refused(
                "--preset", preset, "--simulator-dir", self.folder, "--config", config, "--random-weights"
            )
            for word in [f"--preset {preset}: policy {config} ", *words]:
                self.assertIn(word, error)
            named = error.strip().split("policies for this simulator: ")[1].split(", ")
            fitting.update((preset, name) for name in named if not name.startswith("--"))
        for preset, config in fitting:
            error = self.refused("--preset", preset, "--simulator-dir", self.folder, "--config", config)
            self.assertIn("holds no", error)
        error = self.refused("--preset", "libero", "--simulator-dir", self.folder, "--env", "droid")
        self.assertIn("policy pi05_droid does not fit its requests", error)
        error = self.refused("--preset", "aloha_sim", "--simulator-dir", self.folder, "--config", "pi05_aloha",
                             "--default-prompt", "Transfer cube")  # fmt: skip
        self.assertIn("holds no", error)

    def test_policies_of_ones_own_are_judged_by_their_robot(self):
        robot = json.loads((CONFIGS / "robots/libero.json").read_text())
        for names in ("action_names", "gripper_actions"):
            del robot[names]
        for robot_of_mine, words in (
            ("libero", ["holds no examples/libero/main.py"]),
            ({**robot, "action_size": 6}, ["policy mine answers actions of 6 numbers, expected 7"]),
            ({**robot, "state": [{"field": "observation/state", "size": 9}]}, ["policy mine does not fit its requests",
                                                                              "observation/state: found", "array of 9 numbers"]),
            ("aloha", ["images: missing"]),
        ):  # fmt: skip
            error = self.refused("--preset", "libero", "--simulator-dir", self.folder,
                                 "--config-file", self.policy_file(robot_of_mine))  # fmt: skip
            for word in words:
                self.assertIn(word, error)
        error = self.refused(
            "--preset", "libero", "--simulator-dir", self.folder, "--checkpoint-dir", GOLDENS / "tiny_pi05"
        )
        self.assertIn("no policy: give --config or --config-file; policies for this simulator: pi05_libero, ", error)
        lerobot = next(path.parent for path in sorted((GOLDENS / "lerobot").rglob("config.json")))
        error = self.refused("--preset", "libero", "--simulator-dir", self.folder, "--checkpoint-dir", lerobot)
        self.assertIn("does not fit its requests: observation.images.", error)

    def test_scenes_and_ports_that_a_simulator_does_not_have_are_refused(self):
        for preset, arguments, words in (
            ("libero", ["--scenes", "libero_spatal"], "found scene 'libero_spatal', expected some of libero_spatial, "),
            ("sim_evals", ["--scenes", "1,4"], "found scene '4', expected some of 1, 2, 3"),
            ("sim_evals", ["--port", 8001], "found --port 8001, but its client connects to port 8000"),
            ("polaris", ["--python", "python3"], "runs uv, which has its own Python"),
        ):
            error = self.refused(
                "--preset", preset, "--simulator-dir", self.checkout(preset), *self.model(preset), *arguments
            )
            self.assertIn(words, error)

    def test_options_that_contradict_a_preset_are_refused(self):
        for arguments in (
            ["--preset", "libero", "--eval-command", "true"],
            ["--sim-evals-dir", self.folder, "--preset", "sim_evals"],
            ["--simulator-dir", self.folder, "--eval-command", "true"],
            ["--preset", "liber"],
        ):
            done = self.closed_loop(*arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("did you mean 'libero'?", done.stderr)

    def test_help_lists_every_preset(self):
        text = run("pi0", "closed-loop", "--help").stdout
        for preset in NEEDED:
            self.assertRegex(text, rf"(?m)^  {preset} +\S")


if __name__ == "__main__":
    unittest.main()
