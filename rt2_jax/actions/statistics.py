"""What an embodiment's actions look like in numbers, and the bounds that follow from it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rt2_jax.actions.bounds import Bounds, FixedBounds, QuantileBounds
from rt2_jax.actions.identity import check_keys, content_hash
from rt2_jax.actions.space import ActionSpace, check_actions

VERSION = 1
_MOMENTS = ("mean", "std", "min", "q01", "q99", "max")


@dataclass(frozen=True)
class ActionStatistics:
    """Statistics of one embodiment's actions in one action space; each tuple has D numbers.

    `std` divides by the count; q01 and q99 interpolate linearly, as Octo's and OpenVLA's do.

    Attributes:
      embodiment: the robot, e.g. "widowx".
      space: the space that the actions belong to.
      count: the number of actions.
      range_floor: the least distance of resolved quantile bounds, in each field's unit. A joint
        that hardly moves would otherwise turn noise into full-scale levels.
    """

    embodiment: str
    space: ActionSpace
    count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    min: tuple[float, ...]
    q01: tuple[float, ...]
    q99: tuple[float, ...]
    max: tuple[float, ...]
    range_floor: float = 0.01

    def __post_init__(self) -> None:
        if not self.embodiment or self.count < 1 or not self.range_floor > 0:
            raise ValueError(
                f"action statistics need an embodiment, one or more actions and a positive range "
                f"floor, found {self.embodiment!r}, {self.count} and {self.range_floor}"
            )
        for moment in _MOMENTS:
            # Adding 0.0 makes 0.0 of -0.0: the two are equal, so their JSON must be, too.
            values = tuple(float(value) + 0.0 for value in getattr(self, moment))
            object.__setattr__(self, moment, values)
            if len(values) != self.space.dimension or not np.isfinite(values).all():
                raise ValueError(
                    f"action statistics of {self.embodiment!r}: {moment} needs "
                    f"{self.space.dimension} finite numbers, found {values}"
                )

        for i, name in enumerate(self.space.names):
            ordered = [getattr(self, moment)[i] for moment in ("min", "q01", "q99", "max")]
            if ordered != sorted(ordered):
                raise ValueError(
                    f"action statistics of {self.embodiment!r}: field {name!r} has min, q01, q99, "
                    f"max {ordered}, expected them in rising order"
                )

    def range_of(self, index: int, rule: QuantileBounds) -> tuple[float, float]:
        """Low and high of a field by a rule, widened symmetrically to `range_floor`."""
        low, high = getattr(self, rule.low)[index], getattr(self, rule.high)[index]
        if high - low >= self.range_floor:
            return low, high
        middle = (low + high) / 2
        return middle - self.range_floor / 2, middle + self.range_floor / 2

    @property
    def floored(self) -> tuple[str, ...]:
        """The fields whose quantile bounds are narrower than the floor and get widened."""
        rules = [(i, field.name, field.bounds) for i, field in enumerate(self.space.fields)]
        return tuple(
            name
            for i, name, rule in rules
            if isinstance(rule, QuantileBounds)
            and getattr(self, rule.high)[i] - getattr(self, rule.low)[i] < self.range_floor
        )

    def describe(self, actions: Any = None) -> str:
        """A table for people: a field's numbers, its bounds, and what share of `actions` they clip.

        Args:
          actions: [..., D] in native units, or None.
        """
        bounds = resolve_bounds(self.space, self)
        rows = [["field", "unit", *_MOMENTS, "low", "high", "clipped", ""]]
        clipped = ["" for _ in self.space.fields]
        if actions is not None:
            outside = bounds.outside(check_actions(self.space, actions))
            shares = outside.reshape(-1, self.space.dimension).mean(axis=0)
            clipped = [f"{100 * share:.2f} %" for share in shares]
        for i, field in enumerate(self.space.fields):
            numbers = [getattr(self, moment)[i] for moment in _MOMENTS]
            numbers += [bounds.low[i], bounds.high[i]]
            note = "widened to the floor" if field.name in self.floored else ""
            rows.append([field.name, field.unit, *(f"{x:.4g}" for x in numbers), clipped[i], note])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths)).rstrip() for row in rows]
        title = (
            f"{self.embodiment}, {self.space.name}: {self.count} actions, "
            f"range floor {self.range_floor:g}"
        )
        return "\n".join([title, *lines])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with the whole action space, so that a mismatch can be told in words."""
        return {
            "version": VERSION,
            "embodiment": self.embodiment,
            "space": self.space.to_json(),
            "count": self.count,
            **{moment: list(getattr(self, moment)) for moment in _MOMENTS},
            "range_floor": self.range_floor,
        }

    @classmethod
    def from_json(cls, data: Any, where: str = "action statistics") -> ActionStatistics:
        """Reads what `to_json` wrote; other versions, unknown and missing keys are refused."""
        keys = ("embodiment", "space", "count", *_MOMENTS, "range_floor")
        check_keys(where, data, ("version", *keys))
        if data["version"] != VERSION:
            raise ValueError(
                f"{where}: version {data['version']}, this code reads {VERSION}: compute them again"
            )
        values = {key: data[key] for key in keys}
        return cls(**{**values, "space": ActionSpace.from_json(data["space"])})

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON."""
        return content_hash(self.to_json())


def compute_statistics(
    space: ActionSpace,
    embodiment: str,
    actions: Iterable[np.ndarray],
    range_floor: float = 0.01,
) -> ActionStatistics:
    """Statistics of actions in native units; exact, in one pass that keeps them as float32.

    Args:
      space: the action space.
      embodiment: the robot.
      actions: one array [N, D], or arrays [..., D] one after the other, e.g. one per episode.
      range_floor: see `ActionStatistics`.

    Raises:
      ValueError: no actions at all, or what `check_actions` refuses; the message says which array.
    """
    arrays = [actions] if isinstance(actions, np.ndarray) else actions
    kept = [
        check_actions(space, array, f"actions of {embodiment!r}, array {i}")
        .astype(np.float32)
        .reshape(-1, space.dimension)
        for i, array in enumerate(arrays)
    ]
    if not sum(map(len, kept)):
        raise ValueError(f"there are no actions of {embodiment!r} in space {space.name!r}")
    columns = [np.concatenate([array[:, i] for array in kept]) for i in range(space.dimension)]
    quantiles = [np.quantile(column.astype(np.float64), (0.01, 0.99)) for column in columns]
    return ActionStatistics(
        embodiment,
        space,
        count=len(columns[0]),
        mean=tuple(column.mean(dtype=np.float64) for column in columns),
        std=tuple(column.std(dtype=np.float64) for column in columns),
        min=tuple(column.min() for column in columns),
        q01=tuple(low for low, _ in quantiles),
        q99=tuple(high for _, high in quantiles),
        max=tuple(column.max() for column in columns),
        range_floor=range_floor,
    )


def resolve_bounds(space: ActionSpace, statistics: ActionStatistics | None = None) -> Bounds:
    """The numbers behind a space's bounds.

    Args:
      space: the action space.
      statistics: of the embodiment; None is enough where all bounds are fixed.

    Raises:
      ValueError: fields take their bounds from statistics and there are none, or the statistics
        belong to another action space. There is no default.
    """
    if statistics is not None:
        space.check_same(statistics.space, f"action statistics of {statistics.embodiment!r}")
    lows, highs, missing = [], [], []
    for i, field in enumerate(space.fields):
        low, high = 0.0, float(len(field.levels or ()) - 1)
        if isinstance(field.bounds, FixedBounds):
            low, high = field.bounds.low, field.bounds.high
        elif isinstance(field.bounds, QuantileBounds):
            if statistics is None:
                missing.append(field.name)
                continue
            low, high = statistics.range_of(i, field.bounds)
        lows.append(low)
        highs.append(high)
    if missing:
        raise ValueError(
            f"action space {space.name!r} (hash {space.hash[:12]}) takes the bounds of {missing} "
            f"from statistics and none were given: compute them for this embodiment and space"
        )
    return Bounds(space.hash, np.array(lows), np.array(highs))


@dataclass(frozen=True)
class StatisticsTable:
    """Action statistics keyed by (embodiment, name of the action space), kept in a JSON file.

    Raises:
      ValueError: two entries have one key.
    """

    entries: tuple[ActionStatistics, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(self.entries))
        twice = sorted({key for key in self.keys if self.keys.count(key) > 1})
        if twice:
            raise ValueError(f"two action statistics have the same (embodiment, space): {twice}")

    @property
    def keys(self) -> list[tuple[str, str]]:
        """(embodiment, name of the action space) of each entry."""
        return [(entry.embodiment, entry.space.name) for entry in self.entries]

    def get(self, embodiment: str, space: ActionSpace) -> ActionStatistics:
        """The statistics of an embodiment in a space.

        Raises:
          KeyError: there are none; the message lists the keys that exist.
          ValueError: the space has changed since they were computed; the message says how.
        """
        key = (embodiment, space.name)
        if key not in self.keys:
            raise KeyError(
                f"no action statistics for (embodiment, space) {key}; there are {self.keys}"
            )
        entry = self.entries[self.keys.index(key)]
        space.check_same(entry.space, f"action statistics of {embodiment!r}")
        return entry

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the JSON file; an interrupted write leaves the old one."""
        target = Path(path)
        data = {"statistics": [entry.to_json() for entry in self.entries]}
        partial = target.with_name(target.name + ".partial")
        partial.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, target)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> StatisticsTable:
        """Reads the JSON file.

        Raises:
          ValueError: the file is no JSON or holds something else; the message names it.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: no JSON file: {error}") from None
        if not isinstance(data, dict) or not isinstance(data.get("statistics"), list):
            raise ValueError(f'{path}: expected {{"statistics": [...]}}, found {str(data)[:40]}')
        try:
            check_keys("statistics table", data, ("statistics",))
            entries = enumerate(data["statistics"])
            return cls(tuple(ActionStatistics.from_json(x, f"entry {i}") for i, x in entries))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error.args[0]}") from error
