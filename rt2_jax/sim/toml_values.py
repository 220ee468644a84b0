"""Values of a TOML file, checked: `where` says in every error which table and key is wrong."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any


def check_table(where: str, value: Any, keys: Collection[str] | None = None) -> Mapping[str, Any]:
    """A table; with exactly these keys, if any are given."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: found {value!r}, expected a table")
    if keys is not None and set(value) != set(keys):
        missing, unknown = sorted(set(keys) - set(value)), sorted(set(value) - set(keys))
        raise ValueError(f"{where}: missing {missing}, unknown {unknown}; expected {sorted(keys)}")
    return value


def check_text(where: str, value: Any) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: found {value!r}, expected a text")
    return value


def check_list(where: str, value: Any, form: str, least: int, most: float = math.inf) -> list[Any]:
    """A list of `least` to `most` items; `form` says in words what it looks like."""
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise ValueError(f"{where}: found {value!r}, expected {form}")
    return value


def check_number(where: str, value: Any, low: float, high: float) -> float:
    """A number from `low` to `high`; nan is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{where}: found {value!r}, expected a number from {low:g} to {high:g}")
    return float(value)


def check_whole(where: str, value: Any, low: int, high: int) -> int:
    """A whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{where}: found {value!r}, expected a whole number from {low} to {high}")
    return value


def check_range(where: str, value: Any, low: float, high: float) -> tuple[float, float]:
    """Two numbers [low, high] within the limits, the smaller one first."""
    first, last = check_list(where, value, "[low, high]", 2, 2)
    span = check_number(where, first, low, high), check_number(where, last, low, high)
    if span[0] > span[1]:
        raise ValueError(f"{where}: found {value!r}, expected [low, high]")
    return span
