"""Random states of the reacher: picture, fingertip, and what the scripted policy does there.

    python make_data.py --count 12000 --output data

The scripted policy moves the fingertip straight to the target, 4 cm per action. Writes images.npy, states.npy and
actions.npy. One core renders about 25 pictures a second; several runs with other seeds make folders that train.py takes
together.
"""

import argparse
import pathlib

import numpy as np
from environment import Reacher, arm_angles

HORIZON = 8  # actions of a chunk
SPEED = 0.04  # metres per action
NEAR, NEAR_SPREAD = 0.4, 0.03  # share of states near the target, where precision counts, and how near


def demonstration(start, target):
    """The next positions of the fingertip, [HORIZON, 2]."""
    way = target - start
    share = np.minimum(1, SPEED * np.arange(1, HORIZON + 1) / max(np.linalg.norm(way), 1e-9))
    return start + share[:, None] * way


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    arguments = parser.parse_args()

    random = np.random.default_rng(arguments.seed)
    reacher = Reacher(arguments.seed)
    images = np.empty((arguments.count, 224, 224, 3), np.uint8)
    states = np.empty((arguments.count, 2), np.float32)
    actions = np.empty((arguments.count, HORIZON, 2), np.float32)
    for i in range(arguments.count):
        reacher.reset()
        if random.random() < NEAR:
            near = reacher.target() + NEAR_SPREAD * random.normal(size=2)
            reacher.place(arm_angles(near, random.choice([-1, 1])))
        images[i], states[i] = reacher.picture(), reacher.fingertip()
        actions[i] = demonstration(reacher.fingertip(), reacher.target())
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, values in (("images", images), ("states", states), ("actions", actions)):
        np.save(arguments.output / f"{name}.npy", values)


if __name__ == "__main__":
    main()
