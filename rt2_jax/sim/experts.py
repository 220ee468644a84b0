"""Scripted experts: they know where everything is, and show how each skill is done."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.scene import Scene
from rt2_jax.sim.simulation import TABLETOP_ACTIONS
from rt2_jax.sim.skills import TableState

_STRIDE = 0.045  # metres per control step and axis through free air
_HOVER = 0.016  # metres of the tip above the target's top
_TRAVEL = 0.052  # metres above the table, over every object
_CONE = 0.05  # metres from the goal within which the tip sinks towards its height
_PUSH_HEIGHT = 0.012
_PUSH_STRIDE = 0.024
_CONTACT = 0.032  # metres between an object's centre and a tip that touches it, roughly
_SLIDE = 0.025  # metres beside the line of a push from where the tip slides back to it
_ASIDE = 0.015  # metres away from the object while the tip rises
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
        if scene.skill == "reach":
            motion = _reach(state, next_place(state, scene))
        else:
            motion = _push(_Push.of(state, scene), state.tip)
        return {"actions": _action(motion)}


def next_place(state: TableState, scene: Scene) -> np.ndarray:
    """Where the tip is to be next, float64 [3]: the end of what the expert is about to do."""
    if scene.skill == "reach":
        place: np.ndarray = state.tops[scene.roles["target"]] + (0.0, 0.0, _HOVER)
        return place
    push = _Push.of(state, scene)
    return push.end if push.under_way else push.start


@dataclasses.dataclass(frozen=True)
class _Push:
    """A push as the tip sees it.

    Attributes:
      thing: where the object is, [2].
      along: the direction in which it is to go, [2].
      distance: between the centres of the object and the goal.
      behind: of the tip behind the object, against `along`.
      aside: of the tip from the line of the push.
      low: whether the tip is as low as the objects.
    """

    thing: np.ndarray
    along: np.ndarray
    distance: float
    behind: float
    aside: float
    low: bool

    @classmethod
    def of(cls, state: TableState, scene: Scene) -> _Push:
        thing, goal = (state.centres[scene.roles[role], :2] for role in ("target", "goal"))
        distance = float(np.linalg.norm(goal - thing))
        along = (goal - thing) / distance
        offset = state.tip[:2] - thing
        behind, aside = -float(offset @ along), float(offset @ (-along[1], along[0]))
        low = bool(state.tip[2] < _PUSH_HEIGHT + 0.012)
        return cls(thing, along, distance, behind, aside, low)

    @property
    def under_way(self) -> bool:
        """Whether the tip stands right to push, or can slide there without touching anything."""
        return self.low and self.behind > 0.4 * _CONTACT and abs(self.aside) < _SLIDE

    @property
    def start(self) -> np.ndarray:
        """Where the tip begins, a little behind the object."""
        return self._on_the_line(-_CONTACT - 0.008)

    @property
    def end(self) -> np.ndarray:
        """Where the tip is when the objects touch."""
        return self._on_the_line(self.distance - _TOUCHING + 0.004 - _CONTACT)

    def _on_the_line(self, further: float) -> np.ndarray:
        return np.append(self.thing + self.along * further, _PUSH_HEIGHT)


def _action(motion: np.ndarray | None) -> np.ndarray:
    """A translation [3] in metres with a closed gripper, or `None` to terminate; float32 [1, 8]."""
    action = np.zeros((1, TABLETOP_ACTIONS.dimension), np.float32)
    if motion is not None:
        action[0, TABLETOP_ACTIONS.index("terminate")] = 1.0
        first = TABLETOP_ACTIONS.index("position_delta_x")
        action[0, first : first + 3] = motion
    return action


def _limited(motion: np.ndarray) -> np.ndarray:
    """Each axis for itself, so that a field of an action tells of its own axis alone."""
    return np.clip(motion, -_STRIDE, _STRIDE)


def _reach(state: TableState, goal: np.ndarray) -> np.ndarray | None:
    if np.linalg.norm(goal - state.tip) < 0.008:
        return None
    return _over_and_down(state.tip, goal)


def _over_and_down(tip: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Sideways at travel height, and down inside a cone over the goal."""
    sideways = float(np.linalg.norm(goal[:2] - tip[:2]))
    rise = max(0.0, _TRAVEL - goal[2]) * min(1.0, sideways / _CONE)
    motion = np.append(goal[:2] - tip[:2], goal[2] + rise - tip[2])
    return _limited(motion)


def _push(push: _Push, tip: np.ndarray) -> np.ndarray | None:
    if push.distance < _TOUCHING:
        return None
    if push.under_way:
        free = max(0.0, push.behind - _CONTACT)
        forward = min(_PUSH_STRIDE, free + push.distance - _TOUCHING + 0.004)
        forward *= max(0.0, 1.0 - abs(push.aside) / _SLIDE)
        sideways = -0.6 * push.aside * np.array([-push.along[1], push.along[0]])
        return np.append(push.along * forward + sideways, _PUSH_HEIGHT - tip[2])
    if push.low and np.linalg.norm(push.start[:2] - tip[:2]) > 0.015:
        # Out of the way of other objects first; never straight up, since a model that takes the
        # likeliest number for each axis would take the same zeros for "no idea".
        away = tip[:2] - push.thing
        return np.append(_ASIDE * away / (float(np.linalg.norm(away)) + 1e-9), _STRIDE)
    return _over_and_down(tip, push.start)
