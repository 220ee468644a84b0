"""What a plan tells: the things that matter to a step, where they are, and what is next."""

from __future__ import annotations

import numpy as np

from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.experts import intend

PLAN_POINTS = ("target", "goal", "next")
"""The object to act on, the one to end at (where the skill has one), and where the expert wants the
tip to be next, called by what it does to come there (a language motion: RT-H, Belkhale et al. 2024,
section III)."""


def plan_points(env: TabletopEnv) -> tuple[list[str], np.ndarray]:
    """What `PLAN_POINTS` are called and where they are: a teacher's knowledge.

    Returns:
      Three names, "" for what the skill doesn't have; and float32 [3, 3], metres in the base frame.
    """
    state, scene = env.table_state(), env.scene
    objects = [scene.roles.get(role) for role in PLAN_POINTS[:2]]
    names = ["" if i is None else scene.objects[i].name for i in objects]
    centres = [state.tip if i is None else state.centres[i] for i in objects]
    intention = intend(state, scene)
    # The last digits are not the same everywhere.
    places = np.stack([*centres, intention.place]).round(4)
    return [*names, intention.word], places.astype(np.float32)
