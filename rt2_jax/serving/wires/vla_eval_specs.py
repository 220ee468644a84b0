"""A policy's actions and inputs in the words of vla-eval's `DimSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rt2_jax.actions.space import ROTATIONS, ActionField
from rt2_jax.serving.plain_actions import PlainActions
from rt2_jax.serving.requests import Schema

GRIPPERS = (
    "continuous_01",
    "binary_close_positive",
    "binary_close_negative",
    "binary_close_01",
)
"""What a gripper's number can be; in the first one 1 is open."""
TURNS = ("as_is", "euler_xyz")

_ROTATIONS = {
    "rotation_vector": "axis_angle",
    "euler_xyz": "euler_xyz",
    "quaternion_xyzw": "quaternion_xyzw",
    "rot6d_rows": "rot6d_interleaved",
}


class Convention:
    """What a benchmark is sent; it asks for it in the URL: `/vla-eval?gripper=...&rotation=...`.

    Args:
      schema: of the policy.
      query: of the URL.

    Raises:
      ValueError: another gripper or rotation than these.
    """

    def __init__(self, schema: Schema, query: Mapping[str, str]) -> None:
        for name, known in (("gripper", GRIPPERS), ("rotation", TURNS)):
            if query.get(name, known[0]) not in known:
                raise ValueError(f"{name}: found {query[name]!r}, expected one of {list(known)}")
        self._schema = schema
        self._gripper = query.get("gripper", GRIPPERS[0])
        self._plain = PlainActions(
            schema.action_space,
            schema.metadata.get("action_bounds"),
            keep_rotation=query.get("rotation", TURNS[0]) == TURNS[0],
        )
        self._fields = [ActionField.from_json(each) for each in self._plain.describe()]

    def actions(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float32 [K, D without `terminate`], and bool [K]: where the policy ends the episode."""
        plain, ends = self._plain.convert(actions)
        for i, field in enumerate(self._fields):
            if field.polarity is not None and self._gripper != GRIPPERS[0]:
                closed = plain[:, i] <= 0.5
                high, low = {
                    "binary_close_positive": (1.0, -1.0),
                    "binary_close_negative": (-1.0, 1.0),
                    "binary_close_01": (1.0, 0.0),
                }[self._gripper]
                plain[:, i] = np.where(closed, high, low)
        return plain.astype(np.float32), ends

    def action_spec(self) -> dict[str, Any]:
        """Components in the order of an action."""
        spec: dict[str, Any] = {}
        start = 0
        while start < len(self._fields):
            field = self._fields[start]
            size = ROTATIONS[field.rotation] if field.rotation else 1
            kind = "raw"
            name = field.name
            bounds: list[float] | None = None
            if field.rotation and size > 1:
                name, kind = "rotation", _ROTATIONS.get(field.rotation, "raw")
            elif field.polarity is not None:
                name, kind = "gripper", self._gripper
                bounds = [-1.0, 1.0] if kind.endswith("tive") else [0.0, 1.0]
            elif [each.unit for each in self._fields[start : start + 3]] == ["m"] * 3:
                name, size = "position", 3
                kind = "absolute_xyz" if field.reference == "absolute" else "delta_xyz"
            entry: dict[str, Any] = {"name": name, "dims": size, "format": kind}
            if bounds:
                entry["range"] = bounds
            entry["description"] = f"{field.unit}, {field.frame} frame, {field.reference}"
            spec[name if name not in spec else f"{name}_{start}"] = entry
            start += size
        return spec

    def observation_spec(self) -> dict[str, Any]:
        """What the policy reads."""
        spec: dict[str, Any] = {
            "image": {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"},
            "language": {"name": "language", "dims": 0, "format": "language"},
        }
        if len(self._schema.views) > 1:
            spec["wrist"] = spec["image"]
        if self._schema.state_fields:
            names = ", ".join(self._schema.state_fields)
            spec["state"] = {
                "name": "state",
                "dims": len(self._schema.state_fields),
                "format": "raw",
                "description": names,
            }
        return spec

    def observation_params(self) -> dict[str, bool]:
        """What the benchmark is asked to send."""
        params = {}
        if len(self._schema.views) > 1:
            params["send_wrist_image"] = True
        if self._schema.state_fields:
            params["send_state"] = True
        return params
