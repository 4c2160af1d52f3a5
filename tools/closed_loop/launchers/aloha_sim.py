"""openpi's examples/aloha_sim for several episodes, and how each of them went.

Its own main.py runs once per episode, with seeds 0, 1, ...; it prints neither reward nor success. gym-aloha's reward
rises with the stages of a task; 4 is the last one. An episode whose actions are so wild that the physics diverges, which
ends main.py with an exception, is a failure and says so; every other exception ends this program.
"""

import argparse
import logging
import pathlib
import sys

TASK_DONE = 4

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--openpi-dir", type=pathlib.Path, required=True)
parser.add_argument("--host", default="localhost")
parser.add_argument("--port", type=int, default=8000)
parser.add_argument("--scene", default="AlohaTransferCube-v0")
parser.add_argument("--episodes", type=int, default=1)
parser.add_argument("--output-dir", type=pathlib.Path, required=True)
args = parser.parse_args()

sys.path.insert(0, str(args.openpi_dir / "examples" / "aloha_sim"))
import env
import main
from dm_control.rl.control import PhysicsError


class WatchedEnvironment(env.AlohaSimEnvironment):
    """Keeps the episode's highest reward, which the reset at the end of a run would erase."""

    highest_reward = 0

    def apply_action(self, action):
        super().apply_action(action)
        WatchedEnvironment.highest_reward = max(WatchedEnvironment.highest_reward, self._episode_reward)


env.AlohaSimEnvironment = WatchedEnvironment
logging.basicConfig(level=logging.INFO, force=True)
successes = 0
for episode in range(args.episodes):
    WatchedEnvironment.highest_reward = 0
    remark = ""
    try:
        main.main(
            main.Args(
                out_dir=args.output_dir,
                task=f"gym_aloha/{args.scene}",
                seed=episode,
                host=args.host,
                port=args.port,
            )
        )
    except PhysicsError as error:
        remark = f", {error}"
    reward = WatchedEnvironment.highest_reward
    is_success = reward == TASK_DONE and not remark
    successes += is_success
    print(f"episode {episode}: {'success' if is_success else 'failure'}, reward {reward}{remark}", flush=True)
print(f"scene {args.scene}: {successes}/{args.episodes}", flush=True)
