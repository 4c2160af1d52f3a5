"""The reacher of tools/examples: openpi's answers to requests of its episodes, and episodes in the simulator."""

import re
import subprocess
import sys
import unittest

import numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy

from support import GOLDENS, PATIENCE_S, POLICIES, TemporaryFolderTest, free_port, serve

REACHER = GOLDENS.parent.parent / "tools/examples/reacher"
KINDS = ("pi0", "pi05")
ROUNDING = 1e-6  # metres, of float32; one of bfloat16 is above


def options(kind, *more):
    return [
        "--config-file", REACHER / f"{kind}_reacher.json", "--checkpoint-dir", REACHER / kind, "--precision", "float32",
        "--seed", 2, "--skip-masked", *more,
    ]  # fmt: skip


def recorded(kind):
    """Requests of episodes that openpi played, each with its noise, and its answers."""
    golden = np.load(GOLDENS / f"reacher/{kind}_reacher.npz")
    requests = [
        {"observation/image": image, "observation/state": state, "prompt": "reach", "noise": noise}
        for image, state, noise in zip(golden["images"], golden["states"], golden["noise"], strict=True)
    ]
    return requests, golden["actions"]


class RecordedTest(unittest.TestCase):
    def apart(self, kind, *more):
        """The largest difference from openpi's answers, in metres."""
        requests, expected = recorded(kind)
        with serve(*options(kind, *more)) as server:
            client = WebsocketClientPolicy("127.0.0.1", server.port)
            answers = [client.infer(request)["actions"] for request in requests]
        return np.abs(np.array(answers) - expected).max()

    def test_answers_are_those_of_openpi(self):
        for kind in KINDS:
            for kernels in ("fast", "reference"):
                with self.subTest(kind, kernels=kernels):
                    self.assertLess(self.apart(kind, "--kernels", kernels), ROUNDING)

    def test_a_rounded_format_is_told_from_it(self):
        for kind in KINDS:
            with self.subTest(kind):
                self.assertGreater(self.apart(kind, "--input-fmt", "bfloat16"), 10 * ROUNDING)


class Still:
    """A policy whose answers are ignored."""

    def __init__(self, policy):
        self.policy = policy

    def reset(self):
        self.policy.reset()

    def infer(self, observation):
        return {"actions": np.zeros_like(self.policy.infer(observation)["actions"])}


class EpisodesTest(TemporaryFolderTest):
    """Which CPU rounds decides a pixel and then an episode, so bounds on three of them are wide: the mean is 11 mm."""

    SEEDS = 5002, 5003, 5005  # with the noise of --seed 2: twice the distance in 8 bits

    @classmethod
    def setUpClass(cls):
        """In a process of its own: drawing may abort it."""
        draw = "from client import Reacher; Reacher(0).picture()"
        done = subprocess.run([sys.executable, "-c", draw], capture_output=True, text=True, check=False, cwd=REACHER)
        if done.returncode != 0:
            error = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            needs = "tools/examples/reacher/requirements.txt, libegl1 and libgles2"
            raise unittest.SkipTest(f"dm_control's reacher cannot be drawn: {error}; it needs {needs}")
        sys.path.insert(0, str(REACHER))

    def distances(self, kind, *more, wrapped=lambda policy: policy):
        """From fingertip to target at the end of each episode, in mm."""
        from client import ServedPolicy, play

        with serve(*options(kind, *more)) as server:
            policy = wrapped(ServedPolicy("127.0.0.1", server.port))
            return [1000 * play(policy, seed)[0] for seed in self.SEEDS]

    def test_pi0_does_its_task_worse_in_an_absurd_format_and_not_without_its_answers(self):
        exact, still = self.distances("pi0"), self.distances("pi0", wrapped=Still)
        absurd = self.distances("pi0", "--input-fmt", "float8_e5m2", "--output-fmt", "float8_e5m2")
        self.assertLess(np.mean(exact), 30, exact)
        self.assertGreater(np.mean(absurd), 1.1 * np.mean(exact), (absurd, exact))
        self.assertGreater(np.mean(still), 50, still)

    def test_pi05_does_its_task(self):
        exact = self.distances("pi05")
        self.assertLess(np.mean(exact), 30, exact)

    def run_client(self, port, *more, program="client.py"):
        command = [sys.executable, REACHER / program, "--port", str(port), *map(str, more)]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def test_guided_chunks_begin_with_smaller_jumps(self):
        jumps = {}
        for rtc in ("none", "guided"):
            with serve(*options("pi0")) as server:
                done = self.run_client(
                    server.port, "--rtc", rtc, "--episodes", 3, "--period", 0, program="real_time.py"
                )
            self.assertEqual(done.returncode, 0, done.stderr)
            jumps[rtc] = float(re.search(r"^where a chunk begins: mean ([0-9.]+) mm", done.stdout, re.M).group(1))
        self.assertLess(jumps["guided"], 0.7 * jumps["none"], jumps)

    def test_the_client_says_how_its_episodes_went(self):
        with serve(*options("pi0")) as server:
            done = self.run_client(server.port, "--episodes", 2, "--output-dir", self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        outcomes = re.findall(r"^episode \d+: (success|failure), [0-9.]+ mm$", done.stdout, re.M)
        self.assertEqual(len(outcomes), 2, done.stdout)
        self.assertIn(f"scene hard: {outcomes.count('success')}/2\n", done.stdout)
        videos = [f"episode_{episode}_{outcome}.mp4" for episode, outcome in enumerate(outcomes)]
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), videos)

    def test_the_client_fails_without_a_server_and_when_it_is_refused(self):
        done = self.run_client(free_port())
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("client: no answer from the server at 127.0.0.1:", done.stderr)
        with serve("--config", "pi05_droid", "--checkpoint-dir", POLICIES / "pi05_droid") as server:
            done = self.run_client(server.port)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"client: no answer from the server at \S+: Error in inference server")


if __name__ == "__main__":
    unittest.main()
