"""Where a continuous field's low and high come from, and the resolved numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rt2_jax.actions.identity import check_keys


@dataclass(frozen=True)
class FixedBounds:
    """Low and high as numbers in the field's unit (RT-1 and the built-in world have them)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        # Adding 0.0 makes 0.0 of -0.0: the two are equal, so their JSON must be, too.
        object.__setattr__(self, "low", float(self.low) + 0.0)
        object.__setattr__(self, "high", float(self.high) + 0.0)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"bounds need finite low < high, found {self.low} and {self.high}")

    def to_json(self) -> dict[str, Any]:
        """`{"kind": "fixed", "low": ..., "high": ...}`."""
        return {"kind": "fixed", "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class QuantileBounds:
    """Low and high by name, read from the statistics of (embodiment, action space).

    q01 and q99 are what Octo, OpenVLA and openpi use for Bridge and Open X-Embodiment data.
    """

    low: str = "q01"
    high: str = "q99"

    def __post_init__(self) -> None:
        if self.low not in ("q01", "min") or self.high not in ("q99", "max"):
            raise ValueError(
                f"quantile bounds take low from 'q01' or 'min' and high from 'q99' or 'max', "
                f"found {self.low!r} and {self.high!r}"
            )

    def to_json(self) -> dict[str, Any]:
        """`{"kind": "quantile", "low": "q01", "high": "q99"}`."""
        return {"kind": "quantile", "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.low} to {self.high} of the statistics"


def bounds_rule_from_json(data: Any) -> FixedBounds | QuantileBounds:
    """Reads what `to_json` of either class wrote."""
    check_keys("bounds", data, ("kind", "low", "high"))
    kinds = {"fixed": FixedBounds, "quantile": QuantileBounds}
    if data["kind"] not in kinds:
        raise ValueError(f"bounds of kind {data['kind']!r} are not known; known: {list(kinds)}")
    return kinds[data["kind"]](data["low"], data["high"])


@dataclass(frozen=True, eq=False)
class Bounds:
    """The resolved numbers of one action space: what a codec scales by, and a checkpoint stores.

    Attributes:
      space_hash: `ActionSpace.hash` of the space they were resolved for.
      low: float64 [D], each field's unit; 0 for a discrete field.
      high: float64 [D]; the number of levels - 1 for a discrete field.
    """

    space_hash: str
    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            values = np.array(getattr(self, name), np.float64)
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        if self.low.ndim != 1 or self.low.shape != self.high.shape:
            raise ValueError(
                f"bounds need low and high of one shape [D], found {self.low.shape} and "
                f"{self.high.shape}"
            )
        wrong = np.flatnonzero(~(np.isfinite(self.low) & np.isfinite(self.high)))
        wrong = wrong if wrong.size else np.flatnonzero(self.low >= self.high)
        if wrong.size:
            i = int(wrong[0])
            raise ValueError(
                f"bounds need finite low < high, found {self.low[i]} and {self.high[i]} at "
                f"field index {i}"
            )

    def outside(self, actions: np.ndarray) -> np.ndarray:
        """Bool [..., D]: which values of `actions` [..., D] a codec clips."""
        # In float32, as actions and statistics are kept: float32(-0.1) is below the float64 -0.1,
        # and 0.7 above float32(0.7), but neither is outside.
        low, high, values = (np.asarray(x, np.float32) for x in (self.low, self.high, actions))
        return (values < low) | (values > high)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; `from_json` gives the same bounds back, bit for bit."""
        return {
            "space_hash": self.space_hash,
            "low": self.low.tolist(),
            "high": self.high.tolist(),
        }

    @classmethod
    def from_json(cls, data: Any) -> Bounds:
        """Reads what `to_json` wrote; unknown and missing keys are refused by name."""
        check_keys("resolved bounds", data, ("space_hash", "low", "high"))
        return cls(data["space_hash"], data["low"], data["high"])
