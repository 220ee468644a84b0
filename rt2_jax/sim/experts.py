"""Scripted experts: they know where everything is, and show how each skill is done."""

from __future__ import annotations

from typing import Any

import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.simulation import TABLETOP_ACTIONS
from rt2_jax.sim.skills import TableState

_STRIDE = 0.045  # metres per control step through free air
_HOVER = 0.012  # metres of the tip above the target's top
_TRAVEL = 0.062  # metres above the table, over every object
_CONE = 0.05  # metres from the goal within which the tip sinks towards its height
_PUSH_HEIGHT = 0.012
_PUSH_STRIDE = 0.024
_CONTACT = 0.032  # metres between an object's centre and a tip that touches it, roughly
_TOUCHING = 0.046  # metres between two objects at which a push is done


class ScriptedExpert:
    """A `Policy` that solves the environment's current scene from its true state.

    Every answer depends on the present state only, so it corrects whatever has gone wrong before.
    """

    def __init__(self, env: TabletopEnv) -> None:
        self._env = env

    def reset(self, session: str | None = None) -> None:
        """Nothing to forget."""

    def infer(self, observation: Observation) -> dict[str, Any]:
        """`actions`: float32 [1, 8]; the observation is not used."""
        state, scene = self._env.table_state(), self._env.scene
        target = scene.roles["target"]
        if scene.skill == "reach":
            motion = _reach(state, target)
        else:
            motion = _push(state, target, scene.roles["goal"])
        return {"actions": _action(motion)}


def _action(motion: np.ndarray | None) -> np.ndarray:
    """A translation [3] in metres with a closed gripper, or `None` to terminate; float32 [1, 8]."""
    action = np.zeros((1, TABLETOP_ACTIONS.dimension), np.float32)
    if motion is not None:
        action[0, TABLETOP_ACTIONS.index("terminate")] = 1.0
        first = TABLETOP_ACTIONS.index("position_delta_x")
        action[0, first : first + 3] = motion
    return action


def _limited(motion: np.ndarray, stride: float) -> np.ndarray:
    length = float(np.linalg.norm(motion))
    return motion if length <= stride else motion * (stride / length)


def _reach(state: TableState, target: int) -> np.ndarray | None:
    goal = state.tops[target] + (0.0, 0.0, _HOVER)
    if np.linalg.norm(goal - state.tip) < 0.008:
        return None
    return _over_and_down(state.tip, goal)


def _over_and_down(tip: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Sideways at travel height, and down inside a cone over the goal."""
    sideways = float(np.linalg.norm(goal[:2] - tip[:2]))
    rise = max(0.0, _TRAVEL - goal[2]) * min(1.0, sideways / _CONE)
    motion = np.append(goal[:2] - tip[:2], goal[2] + rise - tip[2])
    return _limited(motion, _STRIDE)


def _push(state: TableState, target: int, goal: int) -> np.ndarray | None:
    thing, end = state.centres[target, :2], state.centres[goal, :2]
    distance = float(np.linalg.norm(end - thing))
    if distance < _TOUCHING:
        return None
    along = (end - thing) / distance
    offset = state.tip[:2] - thing
    behind, aside = -float(offset @ along), float(offset @ (-along[1], along[0]))
    low = state.tip[2] < _PUSH_HEIGHT + 0.012
    if low and behind > 0.4 * _CONTACT and abs(aside) < 0.010:
        return _advance(state.tip, along, behind, aside, distance)
    start = np.append(thing - along * (_CONTACT + 0.008), _PUSH_HEIGHT)
    if low and np.linalg.norm(start[:2] - state.tip[:2]) > 0.015:
        return np.array([0.0, 0.0, _STRIDE])  # out of the way of other objects first
    return _over_and_down(state.tip, start)


def _advance(
    tip: np.ndarray, along: np.ndarray, behind: float, aside: float, distance: float
) -> np.ndarray:
    free = max(0.0, behind - _CONTACT)
    forward = min(_PUSH_STRIDE, free + distance - _TOUCHING + 0.004)
    sideways = -0.6 * aside * np.array([-along[1], along[0]])
    return np.append(along * forward + sideways, _PUSH_HEIGHT - tip[2])
