"""Actions for clients that know no `terminate` and have one gripper convention: OpenVLA's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rt2_jax.actions.bounds import FixedBounds
from rt2_jax.actions.space import ActionField, ActionSpace

_TERMINATE = "terminate"
_DELTAS = ("previous_target", "current_state", "chunk_start")
ROLL_PITCH_YAW = "euler_xyz"


class PlainActions:
    """Turns actions of a space into those of OpenVLA's convention (its `deploy.py`).

    Fields keep their order, unit and frame, but:

    - `terminate` is left out. Where it says so, every delta and velocity is 0: the policy ends an
      episode without a motion, and a client that knows no such field must not make one.
    - A gripper is in [0, 1] and 1 is open. A ratio is turned round at most; others are scaled by
      their bounds.
    - A rotation vector becomes roll, pitch and yaw: turns about the fixed axes x, y, z.

    Args:
      space: of the policy.
      bounds: its resolved bounds, `{"low": [D], "high": [D]}`; None where they are all fixed.
      keep_rotation: leaves rotations as they are, for wires that say which they are.

    Attributes:
      names: of the fields that are left.
    """

    def __init__(
        self,
        space: ActionSpace,
        bounds: Mapping[str, Any] | None = None,
        keep_rotation: bool = False,
    ) -> None:
        self._space = space
        self._kept = [i for i, name in enumerate(space.names) if name != _TERMINATE]
        self.names = tuple(space.names[i] for i in self._kept)
        self._motions = [i for i, field in enumerate(space.fields) if _is_motion(field)]
        self._grippers = {
            i: _gripper_range(field, i, bounds)
            for i, field in enumerate(space.fields)
            if field.polarity is not None
        }
        self._turns: list[int] = []
        if not keep_rotation:
            vectors = [i for i, f in enumerate(space.fields) if f.rotation == "rotation_vector"]
            self._turns = vectors[::3]

    def describe(self) -> list[dict[str, Any]]:
        """The fields as clients get them: plain JSON, as `ActionField.to_json`."""
        turned = {i + k for i in self._turns for k in range(3)}
        described = []
        for i in self._kept:
            data = self._space.fields[i].to_json()
            if i in turned:
                data["rotation"] = ROLL_PITCH_YAW
            if i in self._grippers:
                data |= {"unit": "1", "polarity": "high_is_open"}
                data["bounds"] = FixedBounds(0.0, 1.0).to_json()
            described.append(data)
        return described

    def convert(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions of the space as clients take them.

        Args:
          actions: float32 [K, D], checked.

        Returns:
          float64 [K, D without `terminate`], and bool [K]: where the policy ends the episode.
        """
        plain = actions.astype(np.float64)
        ends = np.zeros(len(actions), bool)
        if _TERMINATE in self._space.names:
            ends = plain[:, self._space.index(_TERMINATE)] == 0
        for start in self._turns:
            plain[:, start : start + 3] = roll_pitch_yaw(plain[:, start : start + 3])
        for i, (closed, opened) in self._grippers.items():
            plain[:, i] = np.clip((plain[:, i] - closed) / (opened - closed), 0.0, 1.0)
        plain[np.ix_(np.flatnonzero(ends), np.array(self._motions, int))] = 0.0
        return plain[:, self._kept], ends


def _is_motion(field: ActionField) -> bool:
    """Whether 0 means that nothing moves."""
    return field.reference in _DELTAS or field.unit.endswith("/s")


def _gripper_range(
    field: ActionField, index: int, bounds: Mapping[str, Any] | None
) -> tuple[float, float]:
    """Its value where it is closed, and where it is open."""
    if isinstance(field.bounds, FixedBounds):
        low, high = field.bounds.low, field.bounds.high
    elif field.unit == "1":  # quantiles of a ratio: OpenVLA leaves the gripper unnormalised, too
        low, high = 0.0, 1.0
    elif bounds is None:
        raise ValueError(
            f"action field {field.name!r}: its bounds come from statistics, and the policy's "
            "metadata has no 'action_bounds' to scale it by"
        )
    else:
        low, high = float(bounds["low"][index]), float(bounds["high"][index])
    return (low, high) if field.polarity == "high_is_open" else (high, low)


def roll_pitch_yaw(vectors: np.ndarray) -> np.ndarray:
    """Rotation vectors, float64 [K, 3], as turns about the fixed axes x, then y, then z; rad.

    With yaw 0 where the pitch is a right angle and the two others are one turn.
    """
    angle = np.linalg.norm(vectors, axis=1)
    half = angle / 2
    # sin(angle / 2) / angle, which is 1/2 at 0 (Grassia 1998, section 3).
    scale = np.where(angle > 1e-8, np.sin(half) / np.maximum(angle, 1e-8), 0.5)
    x, y, z = (vectors * scale[:, None]).T
    w = np.cos(half)
    sine = np.clip(2 * (w * y - z * x), -1.0, 1.0)
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    locked = np.abs(sine) > 1 - 1e-12
    roll = np.where(locked, 2 * np.arctan2(x, w), roll)
    return np.stack([roll, np.arcsin(sine), np.where(locked, 0.0, yaw)], axis=1)
