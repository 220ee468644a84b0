"""Judges: has the skill that a scene asks for succeeded?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from rt2_jax.sim.scene import Scene
from rt2_jax.sim.world import SKILL_ROLES, World


@dataclasses.dataclass(frozen=True)
class TableState:
    """Where everything is, in metres in the base frame: what judges and scripted experts may know.

    tip: float64 [3], the gripper's tip. centres: float64 [N, 3], the objects' centres in the order
    of `Scene.objects`. heights: float64 [N], the objects' heights.
    """

    tip: np.ndarray
    centres: np.ndarray
    heights: np.ndarray

    @property
    def tops(self) -> np.ndarray:
        """The centres of the objects' tops, float64 [N, 3]."""
        return self.centres + self.heights[:, None] * (0.0, 0.0, 0.5)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`distance` is what the skill makes small, in metres; `reason` says in words why it failed."""

    success: bool
    distance: float
    reason: str


def judge(world: World, scene: Scene, state: TableState) -> Verdict:
    """Judges the state as if the episode ended now."""
    limit = world.skill(scene.skill).success_distance
    return _JUDGES[scene.skill](scene, state, limit)


def _judge_reach(scene: Scene, state: TableState, limit: float) -> Verdict:
    distances = np.linalg.norm(state.tops - state.tip, axis=1)
    target = scene.roles["target"]
    distance, nearest = float(distances[target]), int(np.argmin(distances))
    if nearest != target:
        return Verdict(False, distance, f"the tip is nearer to the {scene.objects[nearest].name}")
    if distance > limit:
        return Verdict(False, distance, f"the tip is {distance:.3f} m away, more than {limit} m")
    return Verdict(True, distance, "")


def _judge_push(scene: Scene, state: TableState, limit: float) -> Verdict:
    target, goal = state.centres[scene.roles["target"]], state.centres[scene.roles["goal"]]
    distance = float(np.linalg.norm(target[:2] - goal[:2]))
    if distance > limit:
        return Verdict(
            False, distance, f"the objects are {distance:.3f} m apart, more than {limit} m"
        )
    return Verdict(True, distance, "")


_JUDGES: Mapping[str, Callable[[Scene, TableState, float], Verdict]] = {
    "reach": _judge_reach,
    "push": _judge_push,
}
assert set(_JUDGES) == set(SKILL_ROLES)
