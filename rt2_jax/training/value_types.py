"""Whether values from a file have the types that a dataclass declares."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any


def check_types(cls: type, values: Mapping[str, Any]) -> None:
    """Refuses values of the wrong type before the dataclass calculates with them.

    Args:
      cls: a dataclass.
      values: of some of its fields.

    Raises:
      ValueError: the message names the field, the value and the type.
    """
    kinds = typing.get_type_hints(cls)
    for name, value in values.items():
        kind = kinds.get(name, Any)
        if not _fits(value, kind):
            shown = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else kind
            advice = f"; write it with (): @{value.__name__}()" if callable(value) else ""
            raise ValueError(
                f"{cls.__name__}.{name}: found {value!r}, expected {shown}{advice}".replace(
                    "typing.", ""
                )
            )


def _fits(value: Any, kind: Any) -> bool:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if parts[-1] is Ellipsis:
            return all(_fits(each, parts[0]) for each in value)
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _fits(key, parts[0]) and _fits(each, parts[1]) for key, each in value.items()
        )
    if kind in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (kind is float and isinstance(value, float))
    return isinstance(value, kind)
