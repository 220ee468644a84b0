"""The four rules for writing a continuous value as an integer, and their registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from rt2_jax.actions.codec import ActionCodec
from rt2_jax.actions.identity import check_keys


@dataclass(frozen=True)
class UniformBins(ActionCodec):
    """RT-2: `bins` bins of equal width; a level stands for its bin's centre.

    RT-2 (section 3.2) gives 256 uniform bins and leaves the rounding open. With centres the error
    is at most half a bin, everywhere inside the bounds.
    """

    name: ClassVar[str] = "rt2_uniform"
    bins: int = 256
    horizon: int = 1

    @property
    def count(self) -> int:
        """The number of bins."""
        return self.bins

    def to_levels(self, unit: np.ndarray) -> np.ndarray:
        """The bin that a value lies in; 1.0 lies in the last."""
        return np.minimum(np.floor(unit * self.bins), self.bins - 1)

    def to_unit(self, levels: np.ndarray) -> np.ndarray:
        """The bins' centres."""
        return (levels + 0.5) / self.bins


@dataclass(frozen=True)
class RT1Truncating(ActionCodec):
    """RT-1: truncates to `bins - 1` steps; a level stands for its step's lower edge.

    Rule of robotics_transformer's `action_tokenizer.py`. The error is up to a whole step, always
    towards low; only the exact high is written as the last level.
    """

    name: ClassVar[str] = "rt1_truncating"
    bins: int = 256
    horizon: int = 1

    @property
    def count(self) -> int:
        """The number of levels."""
        return self.bins

    def to_levels(self, unit: np.ndarray) -> np.ndarray:
        """`int(unit * (bins - 1))`."""
        return np.floor(unit * (self.bins - 1))

    def to_unit(self, levels: np.ndarray) -> np.ndarray:
        """`level / (bins - 1)`."""
        return levels / (self.bins - 1)


@dataclass(frozen=True)
class OpenVLACentres(ActionCodec):
    """OpenVLA: `bins` edges, hence `bins - 1` centres.

    Rule of openvla's `action_tokenizer.py`: `digitize` between `linspace(-1, 1, bins)`. Its digit
    is our level + 1 and its token id `vocab_size - digit`. The exact high is written as the last
    digit, which has no bin of its own and stands for the last centre, as in OpenVLA.

    OpenVLA also clips ids outside the digits, so that a token which is no action becomes the most
    extreme action. Here `BoundCodec` refuses such a level: a robot must not move on a wrong token.
    """

    name: ClassVar[str] = "openvla_centres"
    bins: int = 256
    horizon: int = 1

    @property
    def count(self) -> int:
        """The number of edges, each of which is a digit."""
        return self.bins

    @property
    def first_integer(self) -> int:
        """OpenVLA's digits start at 1."""
        return 1

    def to_levels(self, unit: np.ndarray) -> np.ndarray:
        """The digit - 1."""
        return np.digitize(2 * unit - 1, np.linspace(-1, 1, self.bins)) - 1

    def to_unit(self, levels: np.ndarray) -> np.ndarray:
        """The centres between two edges."""
        edges = np.linspace(-1, 1, self.bins)
        centres = (edges[:-1] + edges[1:]) / 2
        return (centres[np.minimum(levels, self.bins - 2)] + 1) / 2


@dataclass(frozen=True)
class IntegerGrid(ActionCodec):
    """RT-2 on Language-Table: the integers `minimum` to `maximum` as text (RT-2, section 4.1).

    The least integer stands for low and the greatest for high, so with symmetric bounds the value
    is `integer / maximum * high`; values are rounded to the nearest.
    """

    name: ClassVar[str] = "language_table_integers"
    minimum: int = -10
    maximum: int = 10
    horizon: int = 1

    @property
    def count(self) -> int:
        """The number of integers."""
        return self.maximum - self.minimum + 1

    @property
    def first_integer(self) -> int:
        """The least integer."""
        return self.minimum

    def to_levels(self, unit: np.ndarray) -> np.ndarray:
        """The nearest grid point."""
        return np.rint(unit * (self.count - 1))

    def to_unit(self, levels: np.ndarray) -> np.ndarray:
        """The grid points, both ends included."""
        return levels / (self.count - 1)


CODECS: Mapping[str, type[ActionCodec]] = {
    codec.name: codec for codec in (UniformBins, RT1Truncating, OpenVLACentres, IntegerGrid)
}


def codec_from_json(data: Any) -> ActionCodec:
    """The codec that `ActionCodec.to_json` wrote.

    Raises:
      KeyError: a key is missing or unknown.
      ValueError: the name is not known (the message lists those that are), or the version differs.
    """
    name = str(data.get("name")) if isinstance(data, Mapping) else type(data).__name__
    if name not in CODECS:
        raise ValueError(f"action codec {name!r} is not known; known: {sorted(CODECS)}")
    codec = CODECS[name]
    parameters = tuple(field.name for field in fields(codec))
    check_keys(f"action codec {name!r}", data, ("name", "version", *parameters))
    if data["version"] != codec.version:
        raise ValueError(
            f"action codec {name!r} has version {data['version']}, this code reads "
            f"{codec.version}: use the release that wrote it"
        )
    return codec(**{key: data[key] for key in parameters})
