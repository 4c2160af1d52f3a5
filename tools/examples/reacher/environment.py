"""dm_control's `reacher`, unchanged, with a controller that moves the fingertip to a position, as robots have one.

Lengths are metres, angles radians. Observation: the picture of its camera `fixed`, uint8 [224, 224, 3], and the
fingertip's position, float [2]. Action: the position to which the fingertip shall move, [2].
"""

import os

import numpy as np

os.environ.setdefault("MUJOCO_GL", "egl")  # draws without a screen; osmesa does too
from dm_control import suite  # noqa: E402

LINK = 0.12  # length of each of the arm's two links
REACH = (0.046, 0.2395)  # distances from the shoulder that the fingertip can have: the wrist's range is limited
SUCCESS_DISTANCE = {"hard": 0.025, "tight": 0.0125}  # fingertip to target at the end; `hard` is dm_control's own
MAX_ACTIONS = 40
STEPS_PER_ACTION = 4  # of the simulator's control, 0.02 s each
STIFFNESS, DAMPING = 3.0, 0.25


def fingertip(angles):
    """Position of the fingertip for the angles of shoulder and wrist."""
    shoulder, elbow = angles[0], angles[0] + angles[1]
    return LINK * np.array([np.cos(shoulder) + np.cos(elbow), np.sin(shoulder) + np.sin(elbow)])


def arm_angles(position, side):
    """Angles that bring the fingertip to `position`, or as near as it can get; `side` is the sign of the wrist's."""
    distance = max(np.linalg.norm(position), 1e-9)
    reached = np.clip(distance, *REACH)
    wrist = side * np.arccos(np.clip(reached**2 / (2 * LINK**2) - 1, -1, 1))
    return np.array([np.arctan2(position[1], position[0]) - wrist / 2, wrist])


class Reacher:
    """Episodes of one seed: equal seeds give equal beginnings."""

    def __init__(self, seed):
        self.env = suite.load("reacher", "hard", task_kwargs={"random": seed})
        self.physics = self.env.physics
        self.env.reset()

    def reset(self):
        self.env.reset()

    def close(self):
        """Frees its pictures' memory."""
        self.env.close()

    def picture(self):
        return self.physics.render(224, 224, camera_id="fixed")

    def fingertip(self):
        return fingertip(self.physics.position())

    def target(self):
        return np.array(self.physics.named.data.geom_xpos["target", :2])

    def distance(self):
        """From the fingertip to the target."""
        return float(self.physics.finger_to_target_dist())

    def place(self, angles):
        """Puts the arm there, at rest."""
        with self.physics.reset_context():
            self.physics.data.qpos[:] = angles
            self.physics.data.qvel[:] = 0

    def act(self, position):
        """Moves for one action's time."""
        side = 1.0 if self.physics.position()[1] >= 0 else -1.0
        goal = arm_angles(np.asarray(position, float), side)
        for _ in range(STEPS_PER_ACTION):
            away = goal - self.physics.position()
            away[0] = (away[0] + np.pi) % (2 * np.pi) - np.pi  # the shoulder turns all round
            torque = STIFFNESS * away - DAMPING * self.physics.velocity()
            self.env.step(np.clip(torque, -1, 1))
