"""Episodes of dm_control's reacher with openpi's own client, against a server of a reacher policy.

    python client.py --port 8000 --scene hard --episodes 10

A scene is a criterion of success, by the distance from fingertip to target after 40 actions: `hard` is dm_control's own
(25 mm), `tight` is half of it. Episode i begins as --seed + i says, so every policy meets the same ones. Prints a line
per episode and the totals last. With --output-dir, the first two are also videos, named success or failure. Exits with
1 when there is no server, or it refuses or goes.
"""

import argparse
import contextlib
import pathlib
import socket
import sys

import imageio.v2 as imageio
import numpy as np
from environment import MAX_ACTIONS, SUCCESS_DISTANCE, Reacher
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy
from websockets.exceptions import WebSocketException

ACTIONS_PER_REQUEST = 4  # of a chunk's, before the policy is asked again
VIDEOS, FRAMES_PER_SECOND = 2, 12


def observe(reacher):
    return {"observation/image": reacher.picture(), "observation/state": reacher.fingertip(), "prompt": "reach"}


class ServedPolicy:
    """A server's action chunks; ends the program when the server does not answer."""

    def __init__(self, host, port):
        self.place = f"{host}:{port}"
        with self.asking():
            socket.create_connection((host, port), timeout=30).close()  # openpi's client would wait for ever
            self.policy = WebsocketClientPolicy(host, port)

    @contextlib.contextmanager
    def asking(self):
        try:
            yield
        except (OSError, EOFError, WebSocketException, RuntimeError) as error:  # openpi's client raises the last
            sys.exit(f"client: no answer from the server at {self.place}: {error}")

    def reset(self):
        self.policy.reset()

    def infer(self, observation):
        with self.asking():
            return self.policy.infer(observation)


def play(policy, seed, filmed=False):
    """One episode: the distance at its end in metres, and its pictures."""
    reacher = Reacher(seed)
    broker = ActionChunkBroker(policy, ACTIONS_PER_REQUEST)
    broker.reset()
    observation, frames = {}, []
    for action in range(MAX_ACTIONS):
        if filmed or action % ACTIONS_PER_REQUEST == 0:  # only these are sent
            observation = observe(reacher)
            frames.append(observation["observation/image"])
        reacher.act(broker.infer(observation)["actions"])
    distance = reacher.distance()
    reacher.close()
    return distance, frames


def run_episodes(arguments):
    policy = ServedPolicy(arguments.host, arguments.port)
    distances = []
    for episode in range(arguments.episodes):
        filmed = arguments.output_dir is not None and episode < VIDEOS
        distance, frames = play(policy, arguments.seed + episode, filmed)
        outcome = "success" if distance <= SUCCESS_DISTANCE[arguments.scene] else "failure"
        print(f"episode {episode}: {outcome}, {1000 * distance:.1f} mm", flush=True)
        distances.append(distance)
        if filmed:
            video = arguments.output_dir / f"episode_{episode}_{outcome}.mp4"
            imageio.mimwrite(video, frames, fps=FRAMES_PER_SECOND)
    succeeded = sum(distance <= SUCCESS_DISTANCE[arguments.scene] for distance in distances)
    print(f"mean distance {1000 * np.mean(distances):.2f} mm, median {1000 * np.median(distances):.2f} mm")
    print(f"scene {arguments.scene}: {succeeded}/{arguments.episodes}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--scene", choices=SUCCESS_DISTANCE, default="hard")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=5000)
    parser.add_argument("--output-dir", type=pathlib.Path, help="for videos; default: none")
    arguments = parser.parse_args()
    if arguments.episodes < 1:
        parser.error("--episodes: expected 1 or more")
    if arguments.output_dir:
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
    run_episodes(arguments)


if __name__ == "__main__":
    main()
