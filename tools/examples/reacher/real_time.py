"""Episodes of the reacher at a fixed rate, without a stop between chunks: the next one is computed meanwhile.

    python real_time.py --port 8000 --rtc guided --episodes 20

Asks for a chunk after --every actions of the last one and begins with it --delay actions later, whether the server was
faster or not, so that an episode depends on no clock; answers that came later than that are counted. --rtc none asks
for chunks that know nothing of each other. Prints how far apart successive commands are, where a chunk begins and
elsewhere, and the distance from fingertip to target at the end. docs/real_time_chunking.md has more.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from client import ServedPolicy, observe
from environment import MAX_ACTIONS, Reacher


class RealTime:
    """Chunks of a policy, the next one asked for while the robot carries out the last."""

    def __init__(self, policy, every, delay, rtc):
        self.policy, self.every, self.delay, self.rtc = policy, every, delay, rtc
        self.background, self.late = ThreadPoolExecutor(1), 0

    def start(self, observation):
        self.chunk, self.place, self.answer = self.policy.infer(observation)["actions"], 0, None

    def next_action(self, see):
        """The action to command now, and whether a chunk begins with it; `see` gives an observation."""
        if self.place == self.every and self.answer is None:
            request = see()
            if self.rtc != "none":
                left = self.chunk[self.place :]
                request |= {"prev_chunk": left, "inference_delay": self.delay, "rtc": self.rtc}
            self.answer = self.background.submit(self.policy.infer, request)
        begins = self.place == self.every + self.delay
        if begins:
            self.late += not self.answer.done()
            self.chunk, self.place, self.answer = self.answer.result()["actions"], self.delay, None
        self.place += 1
        return self.chunk[self.place - 1], begins


def play(real_time, seed, period):
    """Commanded actions, at which of them chunks begin, and the distance at the end in metres."""
    reacher = Reacher(seed)
    real_time.start(observe(reacher))
    actions, beginnings = [], []
    due = time.monotonic()
    for _ in range(MAX_ACTIONS):
        action, begins = real_time.next_action(lambda: observe(reacher))
        actions.append(action)
        beginnings.append(begins)
        reacher.act(action)
        due += period
        time.sleep(max(0, due - time.monotonic()))
    distance = reacher.distance()
    reacher.close()
    return np.array(actions), np.array(beginnings), distance


def line(name, jumps):
    jumps = 1000 * np.concatenate(jumps)
    return f"{name}: mean {jumps.mean():.2f} mm, 95 % below {np.quantile(jumps, 0.95):.2f} mm, max {jumps.max():.2f} mm"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--rtc", choices=("none", "guided", "freeze"), default="guided")
    parser.add_argument("--every", type=int, default=4, help="actions between two requests")
    parser.add_argument("--delay", type=int, default=2, help="actions that an answer may take")
    parser.add_argument("--period", type=float, default=0.08, help="seconds of an action; 0: as fast as it goes")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=5000)
    arguments = parser.parse_args()

    policy = ServedPolicy(arguments.host, arguments.port)
    real_time = RealTime(policy, arguments.every, arguments.delay, arguments.rtc)
    at_beginnings, inside, distances = [], [], []
    for episode in range(arguments.episodes):
        actions, beginnings, distance = play(real_time, arguments.seed + episode, arguments.period)
        jumps = np.linalg.norm(np.diff(actions, axis=0), axis=1)
        at_beginnings.append(jumps[beginnings[1:]])
        inside.append(jumps[~beginnings[1:]])
        distances.append(1000 * distance)
    print(line("where a chunk begins", at_beginnings))
    print(line("inside a chunk", inside))
    print(f"distance at the end: mean {np.mean(distances):.1f} mm; answers that came late: {real_time.late}")


if __name__ == "__main__":
    main()
