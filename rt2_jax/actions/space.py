"""What an action is: named fields with unit, frame, reference and bounds, and a control rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rt2_jax.actions.bounds import FixedBounds, QuantileBounds, bounds_rule_from_json
from rt2_jax.actions.identity import check_keys, content_hash, differences

# `as_recorded`: the data set doesn't say. Nothing is guessed; whoever executes such an action must
# find out first.
FRAMES = ("base", "tool", "world", "joint", "none", "as_recorded")
REFERENCES = {
    "previous_target": "added to the previous target",
    "current_state": "added to the measured state",
    "chunk_start": "added to the state at the start of the chunk",
    "absolute": "absolute",
    "as_recorded": "reference as recorded",
}
# Representation -> how many consecutive fields hold one rotation. rot6d comes in two layouts that
# are easily mixed up: the two columns one after the other, or row by row.
ROTATIONS = {
    "single_axis": 1,
    "rotation_vector": 3,
    "euler_xyz": 3,
    "euler_zyx": 3,
    "quaternion_wxyz": 4,
    "quaternion_xyzw": 4,
    "rot6d_columns": 6,
    "rot6d_rows": 6,
    "as_recorded": 3,
}
POLARITIES = ("high_is_open", "high_is_closed")
# RT-1's mode index: level 0 ends the episode. RT-2's printed actions start with 1 and go on.
TERMINATE_LEVELS = ("terminate", "continue")
_RATIO = FixedBounds(0.0, 1.0)


@dataclass(frozen=True)
class ActionField:
    """One number of an action.

    Attributes:
      name: unique within its space.
      unit: e.g. "m", "rad", "rad/s" (a velocity), "1" (a ratio), "level" (a discrete field).
      frame: one of `FRAMES`.
      reference: what the value is relative to, one of `REFERENCES`.
      bounds: of a continuous field; None for a discrete one.
      rotation: of a rotation's component, one of `ROTATIONS`.
      polarity: of a gripper, one of `POLARITIES`.
      levels: names of a discrete field's levels; its value is the level's index.
    """

    name: str
    unit: str
    frame: str
    reference: str
    bounds: FixedBounds | QuantileBounds | None = None
    rotation: str | None = None
    polarity: str | None = None
    levels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.unit:
            raise ValueError(f"an action field needs a name and a unit, found {self}")
        for attribute, known, needed in (
            ("frame", FRAMES, True),
            ("reference", REFERENCES, True),
            ("rotation", ROTATIONS, False),
            ("polarity", POLARITIES, False),
        ):
            value = getattr(self, attribute)
            if value not in known and (needed or value is not None):
                raise ValueError(
                    f"action field {self.name!r}: {attribute} {value!r} is not one of {list(known)}"
                )
        if (self.bounds is None) == (self.levels is None):
            raise ValueError(
                f"action field {self.name!r} needs either bounds (continuous) or levels "
                f"(discrete), found bounds={self.bounds} and levels={self.levels}"
            )
        if not isinstance(self.bounds, (FixedBounds, QuantileBounds, type(None))):
            raise TypeError(
                f"action field {self.name!r}: bounds must be FixedBounds(low, high) or "
                f"QuantileBounds(), found {self.bounds!r}"
            )
        if self.levels is not None:
            object.__setattr__(self, "levels", tuple(self.levels))
            if len(set(self.levels)) < max(2, len(self.levels)):
                raise ValueError(
                    f"action field {self.name!r} needs two or more distinct levels, "
                    f"found {self.levels}"
                )
        elif "gripper" in self.name and self.polarity is None:
            raise ValueError(
                f"action field {self.name!r} is a gripper without a polarity: say which of "
                f"{list(POLARITIES)} holds"
            )

    def describe(self) -> str:
        """One line for a robot engineer: unit, frame, reference, rotation, polarity and bounds."""
        if self.levels is not None:
            return f"{self.name}: " + ", ".join(f"{i} = {x}" for i, x in enumerate(self.levels))
        words = [self.unit if self.unit != "1" else "ratio"]
        frame = self.frame.replace("_", " ")
        words += [f"{frame} frame"] if self.frame != "none" else []
        words += [REFERENCES[self.reference]]
        rotation = "rotation as recorded" if self.rotation == "as_recorded" else self.rotation
        words += [rotation] if rotation else []
        words += [self.polarity.replace("_", " ")] if self.polarity else []
        return f"{self.name}: {', '.join(words)}, {self.bounds}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; what the field doesn't have is absent."""
        optional = {
            "bounds": self.bounds.to_json() if self.bounds else None,
            "rotation": self.rotation,
            "polarity": self.polarity,
            "levels": list(self.levels) if self.levels else None,
        }
        return {
            "name": self.name,
            "unit": self.unit,
            "frame": self.frame,
            "reference": self.reference,
            **{key: value for key, value in optional.items() if value is not None},
        }

    @classmethod
    def from_json(cls, data: Any) -> ActionField:
        """Reads what `to_json` wrote; unknown and missing keys are refused by name."""
        name = data.get("name") if isinstance(data, Mapping) else None
        required = ("name", "unit", "frame", "reference")
        optional = ("bounds", "rotation", "polarity", "levels")
        check_keys(f"action field {name!r}", data, required, optional)
        values = dict(data)
        if "bounds" in values:
            values["bounds"] = bounds_rule_from_json(values["bounds"])
        return cls(**values)


@dataclass(frozen=True)
class ActionSpace:
    """An ordered list of action fields and the rate at which actions are executed.

    Raises:
      ValueError: no fields, a name twice, a rate that is not positive, or an incomplete rotation.
    """

    name: str
    fields: tuple[ActionField, ...]
    control_rate_hz: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        object.__setattr__(self, "control_rate_hz", float(self.control_rate_hz))
        if not self.name or not self.fields:
            raise ValueError(
                f"an action space needs a name and at least one field, found name {self.name!r} "
                f"and {len(self.fields)} fields"
            )
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"action space {self.name!r} has field names twice: {twice}")
        if not (math.isfinite(self.control_rate_hz) and self.control_rate_hz > 0):
            raise ValueError(
                f"action space {self.name!r}: control_rate_hz must be a positive number, "
                f"found {self.control_rate_hz}"
            )
        self._check_rotations()

    def _check_rotations(self) -> None:
        start = 0
        while start < self.dimension:
            first = self.fields[start]
            size = ROTATIONS[first.rotation] if first.rotation else 1
            group = self.fields[start : start + size]
            kinds = {(f.rotation, f.unit, f.frame, f.reference) for f in group}
            if len(group) < size or len(kinds) > 1:
                raise ValueError(
                    f"action space {self.name!r}: {first.rotation} needs {size} consecutive "
                    f"fields of one unit, frame and reference, found "
                    f"{[f.describe() for f in group]}"
                )
            start += size

    @property
    def dimension(self) -> int:
        """D, the number of fields."""
        return len(self.fields)

    @property
    def names(self) -> tuple[str, ...]:
        """The fields' names in order."""
        return tuple(field.name for field in self.fields)

    def index(self, name: str) -> int:
        """The position of a field. Raises KeyError with the names that exist."""
        if name not in self.names:
            raise KeyError(
                f"action space {self.name!r} has no field {name!r}; it has {list(self.names)}"
            )
        return self.names.index(name)

    def describe(self) -> str:
        """A few lines for people: one per field, with all that a robot engineer must know."""
        head = f"{self.name}: {self.dimension} fields at {self.control_rate_hz:g} Hz"
        return "\n".join([head] + [f"  {i} {f.describe()}" for i, f in enumerate(self.fields)])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` gives an equal space back."""
        return {
            "name": self.name,
            "control_rate_hz": self.control_rate_hz,
            "fields": [field.to_json() for field in self.fields],
        }

    @classmethod
    def from_json(cls, data: Any) -> ActionSpace:
        """Reads what `to_json` wrote; unknown and missing keys are refused by name."""
        check_keys("action space", data, ("name", "control_rate_hz", "fields"))
        fields = tuple(ActionField.from_json(field) for field in data["fields"])
        return cls(data["name"], fields, data["control_rate_hz"])

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON: any change of any field changes it."""
        return content_hash(self.to_json())

    def check_same(self, other: ActionSpace, where: str) -> None:
        """Refuses another space, saying what differs.

        Args:
          other: the space that was found.
          where: what holds it, for the message (a file, a task, a server).
        """
        if other != self:
            lines = differences(other.to_json(), self.to_json())
            raise ValueError(
                f"{where} belongs to another action space than {self.name!r}:\n  "
                + "\n  ".join(lines)
            )


def check_actions(space: ActionSpace, actions: Any, where: str = "actions") -> np.ndarray:
    """Refuses anything that is no array of actions of this space.

    Args:
      space: the action space.
      actions: [..., D], any real dtype, native units; a discrete field holds its level's index.
      where: what they belong to, for the message (a task, an episode).

    Returns:
      `actions` as an array, dtype and values unchanged.

    Raises:
      TypeError: not real numbers.
      ValueError: wrong shape, NaN or infinite, or a discrete value that is no level's index. The
        message names the field and the step.
    """
    try:
        array = np.asarray(actions)
    except ValueError as error:
        raise ValueError(f"{where}: expected an array [..., {space.dimension}]: {error}") from None
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{where}: expected real numbers, found dtype {array.dtype}")
    if array.ndim == 0 or array.shape[-1] != space.dimension:
        raise ValueError(
            f"{where}: expected shape [..., {space.dimension}] for action space {space.name!r} "
            f"with fields {list(space.names)}, found {list(array.shape)}"
        )
    _refuse_first(space, array, ~np.isfinite(array), "a finite number", where)
    for i, field in enumerate(space.fields):
        if field.levels is not None:
            values = array[..., i]
            no_level = (values < 0) | (values >= len(field.levels)) | (values % 1 != 0)
            if not no_level.any():  # this is asked at every action of every robot
                continue
            wrong = np.zeros(array.shape, bool)
            wrong[..., i] = no_level
            names = ", ".join(f"{i} ({level})" for i, level in enumerate(field.levels))
            _refuse_first(space, array, wrong, f"a level's index: {names}", where)
    return array


def _refuse_first(
    space: ActionSpace, array: np.ndarray, wrong: np.ndarray, expected: str, where: str
) -> None:
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        step = f" at step {list(index[:-1])}" if array.ndim > 1 else ""
        raise ValueError(
            f"{where}: field {space.names[index[-1]]!r}{step} is {array[index]}, expected "
            f"{expected} ({wrong.sum()} such of {array.size} values)"
        )


def rt2_action_space(
    name: str,
    *,
    translation_bound_m: float | FixedBounds | QuantileBounds,
    rotation_bound_rad: float | FixedBounds | QuantileBounds,
    gripper_polarity: str,
    control_rate_hz: float,
    gripper_bounds: FixedBounds | QuantileBounds = _RATIO,
    frame: str = "base",
    reference: str = "previous_target",
    rotation: str = "rotation_vector",
) -> ActionSpace:
    """RT-2's eight fields in order (RT-2, section 3.2).

    They are terminate, three translation deltas (m), three rotation deltas (rad) and the gripper
    extension. RT-2 leaves bounds, frame and reference open: every caller says its own.

    Args:
      name: the space's name.
      translation_bound_m: a number b means -b to b metres.
      rotation_bound_rad: a number b means -b to b radians.
      gripper_polarity: one of `POLARITIES`; has no default because a wrong one closes an open hand.
      control_rate_hz: actions per second.
      gripper_bounds: of the gripper extension, a ratio.
      frame: of translation and rotation.
      reference: what the deltas are added to.
      rotation: a representation of three components.
    """
    terminate = ActionField("terminate", "level", "none", "absolute", levels=TERMINATE_LEVELS)
    translation_bounds = _symmetric(translation_bound_m)
    rotation_bounds = _symmetric(rotation_bound_rad)
    translation = [
        ActionField(f"position_delta_{axis}", "m", frame, reference, translation_bounds)
        for axis in "xyz"
    ]
    turn = [
        ActionField(f"rotation_delta_{axis}", "rad", frame, reference, rotation_bounds, rotation)
        for axis in "xyz"
    ]
    gripper = ActionField(
        "gripper_extension", "1", "none", "absolute", gripper_bounds, polarity=gripper_polarity
    )
    return ActionSpace(name, (terminate, *translation, *turn, gripper), control_rate_hz)


def _symmetric(bound: float | FixedBounds | QuantileBounds) -> FixedBounds | QuantileBounds:
    if isinstance(bound, (FixedBounds, QuantileBounds)):
        return bound
    return FixedBounds(-bound, bound)


def language_table_action_space() -> ActionSpace:
    """Language-Table's two fields at the 5 Hz of RT-2's section 4.1 (the environment runs at 10).

    A delta in metres on the effector's target pose, not on its measured one (Language-Table,
    environment code: Box(-0.1, 0.1, (2,))).
    """
    fields = tuple(
        ActionField(
            f"effector_target_delta_{axis}",
            "m",
            "base",
            "previous_target",
            FixedBounds(-0.1, 0.1),
        )
        for axis in "xy"
    )
    return ActionSpace("language_table", fields, control_rate_hz=5.0)
