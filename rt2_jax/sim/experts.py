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
_PUSH_STRIDE = 0.032
_CONTACT = 0.032  # metres between an object's centre and a tip that touches it, roughly
_SLIDE = 0.025  # metres beside the line of a push from where the tip slides back to it
_ASIDE = 0.015  # metres away from the object while the tip rises
_TOUCHING = 0.046  # metres between two objects at which a push is done
_FURTHER = 0.014  # metres that the last push goes on: eyes that are a centimetre off suffice then


@dataclasses.dataclass(frozen=True)
class Intention:
    """What the expert is about to do.

    Attributes:
      word: "over" or "down" to a place through the air, "push", "up" before another try, "stop".
      place: where the tip is to be at the end of it, float64 [3], metres.
      motion: of the next step, float64 [3], metres; zeros for "stop".
    """

    word: str
    place: np.ndarray
    motion: np.ndarray


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
        return {"actions": _action(intend(self._env.table_state(), self._env.scene))}


def intend(state: TableState, scene: Scene) -> Intention:
    """What the expert does in this state."""
    if scene.skill == "reach":
        return _reach(state.tip, state.tops[scene.roles["target"]] + (0.0, 0.0, _HOVER))
    return _push(_Push.of(state, scene), state.tip)


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
        return self._on_the_line(self.distance - _TOUCHING + _FURTHER - _CONTACT)

    def _on_the_line(self, further: float) -> np.ndarray:
        return np.append(self.thing + self.along * further, _PUSH_HEIGHT)


def _action(intention: Intention) -> np.ndarray:
    """As the robot's action with a closed gripper, float32 [1, 8]."""
    action = np.zeros((1, TABLETOP_ACTIONS.dimension), np.float32)
    if intention.word != "stop":
        action[0, TABLETOP_ACTIONS.index("terminate")] = 1.0
        first = TABLETOP_ACTIONS.index("position_delta_x")
        action[0, first : first + 3] = intention.motion
    return action


def _limited(motion: np.ndarray) -> np.ndarray:
    """Each axis for itself, so that a field of an action tells of its own axis alone."""
    return np.clip(motion, -_STRIDE, _STRIDE)


def _reach(tip: np.ndarray, goal: np.ndarray) -> Intention:
    if np.linalg.norm(goal - tip) < 0.008:
        return Intention("stop", tip, np.zeros(3))
    return _over_and_down(tip, goal)


def _over_and_down(tip: np.ndarray, goal: np.ndarray) -> Intention:
    """Sideways at travel height, and down inside a cone over the goal."""
    sideways = float(np.linalg.norm(goal[:2] - tip[:2]))
    rise = max(0.0, _TRAVEL - goal[2]) * min(1.0, sideways / _CONE)
    motion = np.append(goal[:2] - tip[:2], goal[2] + rise - tip[2])
    return Intention("over" if sideways > _CONE else "down", goal, _limited(motion))


def _push(push: _Push, tip: np.ndarray) -> Intention:
    if push.distance < _TOUCHING:
        return Intention("stop", tip, np.zeros(3))
    if push.under_way:
        free = max(0.0, push.behind - _CONTACT)
        forward = min(_PUSH_STRIDE, free + push.distance - _TOUCHING + _FURTHER)
        forward *= max(0.0, 1.0 - abs(push.aside) / _SLIDE)
        sideways = -0.6 * push.aside * np.array([-push.along[1], push.along[0]])
        motion = np.append(push.along * forward + sideways, _PUSH_HEIGHT - tip[2])
        return Intention("push", push.end, motion)
    if push.low and np.linalg.norm(push.start[:2] - tip[:2]) > 0.015:
        # Out of the way of other objects first; never straight up, since a model that takes the
        # likeliest number for each axis would take the same zeros for "no idea".
        away = tip[:2] - push.thing
        motion = np.append(_ASIDE * away / (float(np.linalg.norm(away)) + 1e-9), _STRIDE)
        return Intention("up", push.start, motion)
    return _over_and_down(tip, push.start)
