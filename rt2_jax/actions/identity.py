"""Strict JSON forms: a hash of the content, a check of the keys, what differs between two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def content_hash(data: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON text: sorted keys, no blanks, no NaN."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_keys(
    what: str, data: Any, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> None:
    """Refuses a JSON object with missing or unknown keys.

    Raises:
      TypeError: `data` is no mapping.
      KeyError: a required key is missing or an unknown one is present; the message names them.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"{what}: expected a JSON object, found {type(data).__name__}")
    missing = [key for key in required if key not in data]
    unknown = sorted(str(key) for key in data if key not in required + optional)
    if missing or unknown:
        raise KeyError(
            f"{what}: missing keys {missing}, unknown keys {unknown}; "
            f"required are {list(required)}, optional are {list(optional)}"
        )


def without(value: Any, names: tuple[str, ...]) -> Any:
    """A JSON value without the keys of these names, however deep they are."""
    if not isinstance(value, Mapping):
        return value
    return {name: without(each, names) for name, each in value.items() if name not in names}


def differences(found: Any, expected: Any, where: str = "") -> list[str]:
    """One line for each place where two JSON values differ: `fields[1].unit: 'mm', not 'm'`."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        lines = []
        for key in sorted(set(found) | set(expected)):
            at = f"{where}.{key}" if where else str(key)
            lines += differences(found.get(key), expected.get(key), at)
        return lines
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{where}[{i}]")]
    return [] if found == expected else [f"{where}: {found!r}, not {expected!r}"]
