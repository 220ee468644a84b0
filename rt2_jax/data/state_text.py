"""A robot's proprioceptive state as text before its prompt: `State: 12 200 31.`"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rt2_jax.actions.identity import check_keys
from rt2_jax.data.task_info import RobotInfo, TaskInfo

_RANGE_FLOOR = 0.01
_KEYS = ("embodiment", "space", "fields", "count", "low", "high")


@dataclass(frozen=True)
class StateRanges:
    """The range of each number of an embodiment's state: the declared one, or that of the data.

    Of the data it goes from quantile 0.01 to 0.99. One below 0.01 is widened to that, in the
    number's unit, so that noise of what never moves is not written as if it meant something.

    Attributes:
      embodiment: the robot.
      space: the name of its action space: as with actions, the data sets that have both in common
        have one meaning.
      fields: names of the state's numbers.
      count: of the states that were looked at.
      low: of each field.
      high: of each field.

    Raises:
      ValueError: no states, or ranges that are not finite, rising and one for each field.
    """

    embodiment: str
    space: str
    fields: tuple[str, ...]
    count: int
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        low, high = np.array(self.low), np.array(self.high)
        shape = (len(self.fields),)
        fits = low.shape == high.shape == shape and np.isfinite([low, high]).all()
        if self.count < 1 or not fits or not np.all(low < high):
            raise ValueError(
                f"state ranges of {self.embodiment!r}: found {self.count} states and ranges "
                f"{self.low} to {self.high}, expected some, and a low below its high for each of "
                f"{list(self.fields)}"
            )

    @property
    def key(self) -> tuple[str, str, tuple[str, ...]]:
        """What one table of ranges has one entry for: (embodiment, space, fields)."""
        return self.embodiment, self.space, self.fields

    @classmethod
    def compute(cls, robot: RobotInfo, states: np.ndarray) -> StateRanges:
        """Of states float32 [N, S]."""
        low, high = np.quantile(states.astype(np.float64), (0.01, 0.99), axis=0)
        widen = np.maximum(0.0, _RANGE_FLOOR - (high - low)) / 2
        low, high = low - widen, high + widen
        for name, least, most in robot.state_bounds:
            index = robot.state_fields.index(name)
            low[index], high[index] = least, most
        ranges = tuple(low.tolist()), tuple(high.tolist())
        return cls(
            robot.embodiment, robot.action_space.name, robot.state_fields, len(states), *ranges
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` gives an equal value back."""
        return {name: getattr(self, name) for name in ("embodiment", "space", "count")} | {
            name: list(getattr(self, name)) for name in ("fields", "low", "high")
        }

    @classmethod
    def from_json(cls, data: Any, where: str = "state ranges") -> StateRanges:
        """Reads what `to_json` wrote; unknown and missing keys are refused by name."""
        check_keys(where, data, _KEYS)
        lists: Mapping[str, Any] = {name: tuple(data[name]) for name in ("fields", "low", "high")}
        return cls(**{**data, **lists})


@dataclass(frozen=True)
class StateText:
    """Writes some of a state's numbers, each as one of `bins` equal parts of its range.

    pi0.5 writes the whole state so (Physical Intelligence 2025, arXiv 2504.16054, section IV;
    openpi's `PaligemmaTokenizer`); which numbers help is the run's choice here. Numbers outside the
    range are written as its ends.

    Attributes:
      ranges: of the embodiment's state.
      fields: names of the numbers to write, in order; they are some of the ranges'.
      bins: how many parts.

    Raises:
      KeyError: the robot has no such number.
    """

    ranges: StateRanges
    fields: tuple[str, ...]
    bins: int

    def __post_init__(self) -> None:
        known = self.ranges.fields
        unknown = [name for name in self.fields if name not in known]
        if unknown:
            raise KeyError(
                f"state of {self.ranges.embodiment!r}: no numbers {unknown}; it has {list(known)}"
            )

    def write(self, state: np.ndarray | None, where: str) -> str:
        """The text of a state.

        Args:
          state: float [S], all of the robot's numbers in their order.
          where: what errors call it.

        Raises:
          KeyError: there is no state. ValueError: it has another length.
        """
        known = self.ranges.fields
        if state is None:
            raise KeyError(
                f"{where}: no state, but the model reads {list(self.fields)} of it; send all of "
                f"{list(known)}"
            )
        if state.shape != (len(known),):
            raise ValueError(
                f"{where}: state has shape {list(state.shape)}, expected the {len(known)} numbers "
                f"{list(known)}"
            )
        chosen = [known.index(name) for name in self.fields]
        low, high = (np.array(side)[chosen] for side in (self.ranges.low, self.ranges.high))
        parts = np.floor((state[chosen].astype(np.float64) - low) / (high - low) * self.bins)
        return self._say(np.clip(parts, 0, self.bins - 1).astype(int).tolist())

    def longest(self, count: Callable[[str], int]) -> str:
        """A text with the number of the most tokens everywhere; `count` says how many one has."""
        number = max(range(self.bins), key=lambda number: count(str(number)))
        return self._say([number] * len(self.fields))

    def outside(self, state: np.ndarray, where: str) -> tuple[str, ...]:
        """The fields whose number is outside its range, and is written as the range's end.

        Raises:
          ValueError: one is so far outside, by more than the range's width, that it must be of
            another unit or order.
        """
        names = []
        for name in self.fields:
            index = self.ranges.fields.index(name)
            low, high = self.ranges.low[index], self.ranges.high[index]
            value = float(state[index])
            if not 2 * low - high <= value <= 2 * high - low:
                raise ValueError(
                    f"{where}: state {name!r} is {value:g}, but in training it was {low:g} to "
                    f"{high:g}: is it of another unit, or at another place of the state?"
                )
            if not low <= value <= high:
                names.append(name)
        return tuple(names)

    def _say(self, numbers: Sequence[int]) -> str:
        return f"State: {' '.join(map(str, numbers))}."


def fill_prompt(
    task: TaskInfo, text: str, writer: StateText | None, state: np.ndarray | None, where: str
) -> str:
    """The prompt of a step or an observation, behind its state where the model reads one."""
    prompt = task.fill_prompt(text.strip())
    return prompt if writer is None else f"{writer.write(state, where)} {prompt}"
