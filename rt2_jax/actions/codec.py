"""How actions are written: from native units to integer levels and text, and strictly back."""

from __future__ import annotations

import abc
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rt2_jax.actions.bounds import Bounds
from rt2_jax.actions.identity import content_hash
from rt2_jax.actions.space import ActionSpace, check_actions

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class ActionCodec(abc.ABC):
    """How a continuous value, scaled to 0..1 by its bounds, becomes one of `count` levels.

    Subclasses are frozen dataclasses of their parameters. A discrete field is written as its
    level's index by every codec.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for parameter, value in asdict(self).items():
            if type(value) is not int:
                raise TypeError(
                    f"codec {self.name!r}: {parameter} must be an integer, found {value!r}"
                )
        if self.horizon < 1:
            raise ValueError(f"codec {self.name!r}: horizon must be >= 1, found {self.horizon}")
        if self.count < 2:
            raise ValueError(
                f"codec {self.name!r} needs two or more levels, found {self.count} from "
                f"{self.to_json()}"
            )

    @property
    @abc.abstractmethod
    def horizon(self) -> int:
        """K, how many steps one text holds."""

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """How many levels a continuous field has."""

    @property
    def first_integer(self) -> int:
        """The integer that text shows for level 0 of a continuous field."""
        return 0

    @abc.abstractmethod
    def to_levels(self, unit: np.ndarray) -> np.ndarray:
        """Levels 0..count-1 of float64 values in 0..1, elementwise."""

    @abc.abstractmethod
    def to_unit(self, levels: np.ndarray) -> np.ndarray:
        """The value in 0..1, float64, that each level stands for."""

    def bind(self, space: ActionSpace, bounds: Bounds) -> BoundCodec:
        """This codec for the actions of one space with resolved bounds."""
        return BoundCodec(self, space, bounds)

    def to_json(self) -> dict[str, Any]:
        """Name, version and parameters; `binning.codec_from_json` gives an equal codec back."""
        return {"name": self.name, "version": self.version, **asdict(self)}

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON."""
        return content_hash(self.to_json())


class Encoded(NamedTuple):
    """What `BoundCodec.encode` returns."""

    levels: np.ndarray
    """int32 [..., K, D]."""
    clipped: np.ndarray
    """int64 [D]: how many values of each field lay outside the bounds and were clipped."""


@dataclass(frozen=True)
class BoundCodec:
    """A codec for the actions of one space with resolved bounds.

    Raises:
      ValueError: the bounds were resolved for another space, or are so narrow that float32 cannot
        tell two levels apart.
    """

    codec: ActionCodec
    space: ActionSpace
    bounds: Bounds

    def __post_init__(self) -> None:
        if self.bounds.space_hash != self.space.hash:
            raise ValueError(
                f"the bounds were resolved for action space {self.bounds.space_hash[:12]}, not for "
                f"{self.space.name!r} ({self.space.hash[:12]}): resolve them again"
            )
        low, high = self.bounds.low, self.bounds.high
        step = (high - low) / self.codec.count
        needed = 4 * np.spacing(np.maximum(np.abs(low), np.abs(high)).astype(np.float32))
        narrow = np.flatnonzero((step < needed) & ~self._discrete)
        if narrow.size:
            i = narrow[0]
            raise ValueError(
                f"field {self.space.names[i]!r}: float32 cannot tell {self.codec.count} levels "
                f"apart between {low[i]} and {high[i]}: use wider bounds or fewer levels"
            )

    @property
    def _chunk_shape(self) -> tuple[int, int]:
        return self.codec.horizon, self.space.dimension

    # Kept: training asks for them with every example.
    @cached_property
    def _counts(self) -> np.ndarray:
        return np.array([len(f.levels or ()) or self.codec.count for f in self.space.fields])

    @cached_property
    def _first_integers(self) -> np.ndarray:
        return np.array([0 if f.levels else self.codec.first_integer for f in self.space.fields])

    @cached_property
    def _discrete(self) -> np.ndarray:
        return np.array([f.levels is not None for f in self.space.fields])

    @property
    def integers_per_position(self) -> list[range]:
        """K * D ranges: the integers that each position of the text may hold."""
        ends = zip(self._first_integers.tolist(), self._counts.tolist())
        return [range(first, first + count) for first, count in ends] * self.codec.horizon

    @property
    def integers(self) -> range:
        """The range of all integers that a text may hold."""
        ranges = self.integers_per_position
        return range(min(r.start for r in ranges), max(r.stop for r in ranges))

    def encode(self, actions: Any, where: str = "actions") -> Encoded:
        """Levels of actions [..., K, D] in native units; values outside the bounds are counted.

        Raises:
          TypeError, ValueError: as `check_actions`, and where the last axes are not [K, D].
        """
        array = check_actions(self.space, actions, where)
        self._check_shape(array, where)
        low, high = self.bounds.low, self.bounds.high
        clipped = self.bounds.outside(array).reshape(-1, self.space.dimension).sum(axis=0)
        unit = (np.clip(array.astype(np.float64), low, high) - low) / (high - low)
        levels = np.where(self._discrete, array, self.codec.to_levels(unit))
        return Encoded(levels.astype(np.int32), clipped.astype(np.int64))

    def decode(self, levels: Any, where: str = "levels") -> np.ndarray:
        """Actions, float32 [..., K, D] in native units, of levels int [..., K, D].

        Raises:
          TypeError: no integers.
          ValueError: the last axes are not [K, D], or a level does not exist. The message names the
            field and the step: a level out of range is never clipped into an action.
        """
        array = self._check_levels(levels, where)
        low, high = self.bounds.low, self.bounds.high
        values = low + self.codec.to_unit(array) * (high - low)
        return np.where(self._discrete, array, values).astype(np.float32)

    def to_integers(self, levels: Any) -> np.ndarray:
        """The integers, int64 [..., K, D], that the text shows for levels int [..., K, D].

        Raises:
          TypeError, ValueError: as `decode`.
        """
        return self._check_levels(levels, "levels") + self._first_integers

    def from_integers(
        self, integers: Sequence[int] | np.ndarray, where: str = "integers"
    ) -> np.ndarray:
        """Levels, int32 [K, D], of the K * D integers of one text.

        Raises:
          ValueError: another count, or one out of range. The message names position, field and
            value.
        """
        self._check_count(len(integers), where, "integers")
        levels = np.asarray(integers).reshape(self._chunk_shape) - self._first_integers
        return self._check_levels(levels.astype(np.int32), where)

    def to_text(self, levels: Any) -> str:
        """K * D integers joined by single spaces, e.g. `1 128 91 241 5 101 127 217`.

        Args:
          levels: int [K, D].
        """
        integers = self.to_integers(levels)
        if integers.ndim != 2:
            raise ValueError(f"one text holds levels [K, D], found {list(integers.shape)}")
        return " ".join(map(str, integers.reshape(-1)))

    def from_text(self, text: str) -> np.ndarray:
        """Levels, int32 [K, D], of exactly what `to_text` writes.

        Raises:
          ValueError: another count, something that is no plain integer, or one out of range. The
            message names position, field and value.
        """
        where = f"action text {text!r}"
        words = text.split(" ")
        self._check_count(len(words), where, "words between single spaces")
        for position, word in enumerate(words):
            if not _INTEGER.fullmatch(word):
                raise ValueError(
                    f"{where}: {self._at(position)} is {word!r}, expected a plain decimal integer"
                )
        return self.from_integers([int(word) for word in words], where)

    def _at(self, position: int) -> str:
        step, field = divmod(position, self.space.dimension)
        return f"position {position} (step {step}, field {self.space.names[field]!r})"

    def _check_count(self, found: int, where: str, what: str) -> None:
        horizon, dimension = self._chunk_shape
        if found != horizon * dimension:
            raise ValueError(
                f"{where}: {found} {what}, expected {horizon * dimension}: {horizon} step(s) of "
                f"{list(self.space.names)}"
            )

    def _check_shape(self, array: np.ndarray, where: str) -> None:
        if array.shape[-2:] != self._chunk_shape:
            raise ValueError(
                f"{where}: expected shape [..., K={self._chunk_shape[0]}, "
                f"D={self._chunk_shape[1]}], found {list(array.shape)}"
            )

    def _check_levels(self, values: Any, where: str) -> np.ndarray:
        levels = np.asarray(values)
        if levels.dtype.kind not in "iu":
            raise TypeError(f"{where}: expected integers, found dtype {levels.dtype}")
        self._check_shape(levels, where)
        wrong = np.argwhere((levels < 0) | (levels >= self._counts))
        if wrong.size:
            index = tuple(wrong[0])
            step, field = int(index[-2]), int(index[-1])
            first = self._first_integers[field]
            raise ValueError(
                f"{where}: {self._at(step * self.space.dimension + field)} is "
                f"{levels[index] + first}, expected {first} to {first + self._counts[field] - 1}"
            )
        return levels
