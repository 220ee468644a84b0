"""An action space from the names of its numbers, and from what is known about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from rt2_jax.actions.bounds import QuantileBounds
from rt2_jax.actions.space import TERMINATE_LEVELS, ActionField, ActionSpace

AS_RECORDED = "as recorded"
"""The unit of a number of which nobody has said the unit."""


def named_action_space(
    name: str,
    names: Sequence[str],
    *,
    control_rate_hz: float,
    reference: str,
    fields: Mapping[str, Mapping[str, Any]] = {},
    terminate: bool = True,
) -> ActionSpace:
    """A space with one continuous field for each name, behind RT-2's `terminate`.

    Where nothing is stated a field has the unit "as recorded", no frame, and q01 to q99 of the
    statistics as bounds.

    Args:
      name: of the space.
      names: of the recorded numbers, in order, e.g. from `lerobot_names`.
      control_rate_hz: actions per second.
      reference: of all fields where `fields` says nothing else; one of `REFERENCES`. It has no
        default, because a target taken for a change of it moves the robot far.
      fields: pattern of names (`*` for anything) -> attributes of `ActionField`, e.g.
        `{"*_gripper": {"unit": "1", "polarity": "high_is_open"}}`; later patterns win.
      terminate: whether the policy itself ends the episode, in a first field.

    Raises:
      ValueError: a pattern that fits no name, or what `ActionField` and `ActionSpace` refuse.
    """
    for pattern in fields:
        if not any(fnmatchcase(each, pattern) for each in names):
            raise ValueError(
                f"action space {name!r}: {pattern!r} fits no field; they are {list(names)}"
            )
    found = []
    if terminate:
        found.append(ActionField("terminate", "level", "none", "absolute", levels=TERMINATE_LEVELS))
    for each in names:
        attributes: dict[str, Any] = {
            "unit": AS_RECORDED,
            "frame": "none",
            "reference": reference,
            "bounds": QuantileBounds(),
        }
        for pattern, stated in fields.items():
            if fnmatchcase(each, pattern):
                attributes.update(stated)
        found.append(ActionField(each, **attributes))
    return ActionSpace(name, tuple(found), control_rate_hz)
