"""Plays the same episodes with openpi's own PyTorch code and through our server, both in float32, and compares them.

    OPENPI_DIR=... python tools/examples/reacher/compare_openpi.py

PI0_SERVER   program (build/release/pi0-server)

Needs an environment that openpi's models_pytorch runs in, as tools/exactness.py does, with this folder's
requirements.txt. openpi plays, and the server answers the same requests, with the same noise: the server draws it from
its --seed as torch's generator does. Prints per episode how far the chunks are apart, at most, and the distance at the
end; exits with 1 where the chunks differ by more than rounding. Then the server plays alone: once rounding has changed
a level of a pixel, such an episode goes its own way, so only the mean distances are alike.

--record FOLDER keeps some requests, their noise and openpi's chunks for tests/end_to_end/reacher_test.py.
"""

import argparse
import contextlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from client import ServedPolicy, play
from openpi_model import FOLDER, openpi_policy, peers, read_policy

BOUND_MM = 0.001  # rounding of float32
RECORDED = ((0, 0), (0, 2), (0, 5), (1, 0), (1, 2), (1, 5))  # episode and request


class OwnPolicy:
    """openpi's, with noise as the server draws it."""

    def __init__(self, name, checkpoint, seed):
        self.policy, sizes = openpi_policy(name, checkpoint), read_policy(name)
        self.shape = sizes["action_horizon"], sizes["action_dim"]
        self.generator = torch.Generator().manual_seed(seed)

    def reset(self):
        self.policy.reset()

    def infer(self, observation):
        noise = torch.normal(0.0, 1.0, (1, *self.shape), generator=self.generator)[0].numpy()
        return {"actions": self.policy.infer(observation, noise=noise)["actions"], "noise": noise}


class SideBySide:
    """Acts as the first policy does, asks the second the same, and keeps what was asked and answered."""

    def __init__(self, first, second):
        self.first, self.second, self.kept = first, second, []

    def reset(self):
        self.first.reset()
        self.second.reset()

    def infer(self, observation):
        answers = self.first.infer(observation), self.second.infer(observation)
        self.kept.append((observation, *answers))
        return {"actions": answers[0]["actions"]}

    def apart(self):
        """The largest difference of the answers so far, in mm."""
        return max(1000 * np.abs(first["actions"] - second["actions"]).max() for _, first, second in self.kept)


@contextlib.contextmanager
def served(name, checkpoint, seed):
    """The port of a server."""
    program = os.environ.get("PI0_SERVER", "build/release/pi0-server")
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "server.log"
        process = subprocess.Popen(
            [
                program, "--config-file", FOLDER / f"{name}.json", "--checkpoint-dir", checkpoint,
                "--precision", "float32", "--seed", str(seed), "--host", "127.0.0.1", "--port", "0", "--log-file", log,
            ],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while not (found := re.search(r"serving on \S+:(\d+)", log.read_text() if log.exists() else "")):
                if process.poll() is not None:
                    peers.stop(f"{program} ended: {log.read_text() if log.exists() else ''}")
                time.sleep(0.1)
            yield int(found.group(1))
        finally:
            process.terminate()
            process.wait()


def compare(name, checkpoint, arguments):
    """Prints a table; gives what was asked and answered per episode, and whether all chunks are equal to rounding."""
    own = OwnPolicy(name, checkpoint, arguments.seed)
    episodes, distances = [], []
    with served(name, checkpoint, arguments.seed) as port:
        server = ServedPolicy("127.0.0.1", port)
        for episode in range(arguments.episodes):
            episodes.append(SideBySide(own, server))
            distances.append(play(episodes[-1], arguments.seed + episode)[0])
    with served(name, checkpoint, arguments.seed) as port:
        server = ServedPolicy("127.0.0.1", port)
        alone = [play(server, arguments.seed + episode)[0] for episode in range(arguments.episodes)]

    print(f"{name}\n  episode   chunks apart by   openpi plays   the server plays")
    for episode, played in enumerate(episodes):
        ends = f"{1000 * distances[episode]:9.3f} mm   {1000 * alone[episode]:13.3f} mm"
        print(f"  {episode:7}   {played.apart():12.7f} mm   {ends}")
    worst = max(played.apart() for played in episodes)
    means = f"{1000 * np.mean(distances):9.3f} mm   {1000 * np.mean(alone):13.3f} mm"
    print(f"  at most   {worst:12.7f} mm   {means} on average; the bound is {BOUND_MM} mm", flush=True)
    return [played.kept for played in episodes], worst <= BOUND_MM


def record(path, episodes):
    """Some requests with what openpi answers."""
    asked, answers, _ = zip(*(episodes[episode][request] for episode, request in RECORDED), strict=True)
    np.savez_compressed(
        path, images=[observation["observation/image"] for observation in asked],
        states=[observation["observation/state"] for observation in asked],
        noise=[answer["noise"] for answer in answers], actions=[answer["actions"] for answer in answers],
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policy", nargs="*", default=["pi0", "pi05"], help="pi0, pi05; default: both")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=5000, help="of the first episode, and of the noise")
    parser.add_argument("--record", type=pathlib.Path, metavar="FOLDER")
    arguments = parser.parse_args()
    peers.find_peers(original=False, without_jax=False)

    equal = True
    for kind in arguments.policy:
        name = f"{kind}_reacher"
        episodes, as_equal = compare(name, FOLDER / kind, arguments)
        equal = equal and as_equal
        if arguments.record:
            record(arguments.record / f"{name}.npz", episodes)
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
