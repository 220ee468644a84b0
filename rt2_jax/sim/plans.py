"""What a plan tells: the things that matter to a step, and where the camera sees them."""

from __future__ import annotations

import numpy as np

from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.experts import next_place
from rt2_jax.sim.render.camera import find_view

PLAN_POINTS = ("target", "goal", "tip", "foot", "next")
"""The object to act on, the one to end at (where the skill has one), the gripper's tip, the table's
point below it, and the table's point below where the expert wants the tip to be next."""

_ON_THE_TABLE = (1.0, 1.0, 0.0)


def plan_points(env: TabletopEnv) -> tuple[list[str], np.ndarray]:
    """What `PLAN_POINTS` are called and where the first camera sees them: a teacher's knowledge.

    Returns:
      Five names, "" for what the skill doesn't have; and float32 [5, 2], rows and columns as
      fractions of the picture's sides, cut to 0..1.
    """
    state, scene, simulation = env.table_state(), env.scene, env.simulation
    objects = [scene.roles.get(role) for role in PLAN_POINTS[:2]]
    names = ["" if i is None else scene.objects[i].name for i in objects]
    centres = [state.tip if i is None else state.centres[i] for i in objects]
    following = next_place(state, scene) * _ON_THE_TABLE
    points = np.stack([*centres, state.tip, state.tip * _ON_THE_TABLE, following])
    size = np.array([env.render_settings.height, env.render_settings.width])
    view = find_view(simulation.model, simulation.data, env.cameras[0], int(size[0]))
    seen = np.clip(0.5 + view.project(points) / size, 0.0, 1.0)
    # The last digits are not the same everywhere.
    return [*names, "gripper", "floor", "next"], seen.round(4).astype(np.float32)
