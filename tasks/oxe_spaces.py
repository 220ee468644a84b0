"""Action spaces of robot data sets: RT-2's eight fields, and spaces for what doesn't fit them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from rt2_jax.actions.bounds import FixedBounds, QuantileBounds
from rt2_jax.actions.space import ActionField, ActionSpace, rt2_action_space


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a data set says about its numbers; `as_recorded` where it says nothing.

    Attributes:
      metric: whether translations are in metres and rotations in radians.
      frame: of poses, one of `FRAMES`.
      reference: of poses and joints, one of `REFERENCES`.
      rotation: one of `ROTATIONS` with three components.
      gripper_as_recorded: False where the columns give a gripper in 0..1; where True, its bounds
        come from the statistics, too.
    """

    metric: bool = False
    frame: str = "as_recorded"
    reference: str = "as_recorded"
    rotation: str = "as_recorded"
    gripper_as_recorded: bool = False


def _pose(name: str, rate: float, meaning: Meaning) -> ActionSpace:
    space = rt2_action_space(
        name,
        translation_bound_m=QuantileBounds(),
        rotation_bound_rad=QuantileBounds(),
        # Both codebases turn every gripper into 1 = open.
        gripper_polarity="high_is_open",
        gripper_bounds=QuantileBounds() if meaning.gripper_as_recorded else FixedBounds(0, 1),
        control_rate_hz=rate,
        frame=meaning.frame,
        reference=meaning.reference,
        rotation=meaning.rotation,
    )
    if meaning.metric:
        return space
    fields = [
        dataclasses.replace(field, unit="as_recorded") if field.unit in ("m", "rad") else field
        for field in space.fields
    ]
    return dataclasses.replace(space, fields=tuple(fields))


def _two_arms_pose(name: str, rate: float, meaning: Meaning) -> ActionSpace:
    terminate, *arm = _pose(name, rate, meaning).fields
    arms = [
        dataclasses.replace(field, name=f"{side}_{field.name}")
        for side in ("left", "right")
        for field in arm
    ]
    return ActionSpace(name, (terminate, *arms), rate)


def _joints(names: str, base: str = "") -> Callable[[str, float, Meaning], ActionSpace]:
    """A space of joints and grippers, and perhaps of a base's velocities."""

    def make(name: str, rate: float, meaning: Meaning) -> ActionSpace:
        joints = [
            ActionField(
                each,
                "1" if "gripper" in each else "rad",
                "joint",
                meaning.reference,
                QuantileBounds(),
                polarity="high_is_open" if "gripper" in each else None,
            )
            for each in field_names(names)
        ]
        drive = [
            ActionField(each, "as_recorded", "tool", "as_recorded", QuantileBounds())
            for each in field_names(base)
        ]
        return ActionSpace(name, (_pose(name, rate, meaning).fields[0], *joints, *drive), rate)

    return make


def _planar_base(name: str, rate: float, meaning: Meaning) -> ActionSpace:
    terminate = _pose(name, rate, meaning).fields[0]
    waypoint = [
        ActionField(
            f"waypoint_{axis}", "as_recorded", "as_recorded", "as_recorded", QuantileBounds()
        )
        for axis in "xy"
    ]
    return ActionSpace(name, (terminate, *waypoint), rate)


_TWO_ARMS = "left_joint*6 left_gripper right_joint*6 right_gripper"
SPACES: Mapping[str, Callable[[str, float, Meaning], ActionSpace]] = {
    "pose": _pose,
    "two_arms_pose": _two_arms_pose,
    "arm_joints": _joints("joint*7 gripper"),
    "two_arms_joints": _joints(_TWO_ARMS),
    "two_arms_joints_base": _joints(_TWO_ARMS, base="base_linear_velocity base_angular_velocity"),
    "planar_base": _planar_base,
}
"""Kinds of spaces by name; every one begins with RT-2's `terminate`."""


def field_names(text: str) -> tuple[str, ...]:
    """The names in a text; `joint*3` stands for joint_0, joint_1 and joint_2."""
    names: list[str] = []
    for word in text.split():
        name, _, count = word.partition("*")
        names += [f"{name}_{i}" for i in range(int(count))] if count else [name]
    return tuple(names)
