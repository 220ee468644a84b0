"""What of a request is looked at before anything else reads it, and what of an error goes out."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from rt2_jax.serving.limits import Limits

_MOST_NAMES = 256  # of a request's map, and of its pictures'
_LONGEST_NAME = 256
_PATH = re.compile(r"(?<![\w.:/-])~?/(?:[^\s/'\":]+/)+[^\s'\":,;)]*")


def check_request(data: Any, limits: Limits) -> None:
    """Refuses what is too large, or of a kind that has no business in a request.

    Raises:
      TypeError, ValueError: what was found, and what is expected.
    """
    if not isinstance(data, Mapping):
        return  # whoever reads it says so
    pictures = data.get("images")
    for where, names in (("request", data), ("request: images", pictures)):
        if isinstance(names, Mapping):
            _check_names(names, where)
    for name in ("session", "seq", "step"):
        check_label(data.get(name), name)
    for name in ("prompt", "instruction"):
        value = data.get(name)
        if isinstance(value, (str, bytes)) and len(value) > limits.text:
            raise ValueError(
                f"request: {name}: found {len(value)} characters, expected at most {limits.text}"
            )
    named = pictures.items() if isinstance(pictures, Mapping) else ()
    for name, value in (*data.items(), *((f"images/{view}", each) for view, each in named)):
        if isinstance(value, np.ndarray) and value.ndim == 3:
            sides = value.shape[:2] if value.shape[2] <= 4 else value.shape[1:]
            if sides[0] * sides[1] > limits.pixels:
                raise ValueError(
                    f"request: {name}: found {sides[1]} x {sides[0]} pixels, expected at most "
                    f"{limits.pixels} in all: send smaller pictures, the policy resizes them anyway"
                )


def check_label(value: Any, name: str) -> None:
    """Refuses what is no name or number of a session, a request or a step.

    Raises:
      TypeError, ValueError: what was found, and what is expected.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if name == "step" and value is not None:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise ValueError(f"request: step: found {str(value)[:40]!r}, expected a number from 0")
    elif isinstance(value, str):
        if len(value) > _LONGEST_NAME:
            raise ValueError(
                f"request: {name}: found {len(value)} characters, expected at most {_LONGEST_NAME}"
            )
    elif not isinstance(value, (bool, int, float, type(None))):
        raise TypeError(
            f"request: {name}: found a {type(value).__name__}, expected a number or short text"
        )


def _check_names(names: Mapping[Any, Any], where: str) -> None:
    if len(names) > _MOST_NAMES:
        raise ValueError(f"{where}: found {len(names)} names, expected at most {_MOST_NAMES}")
    for name in names:
        if not isinstance(name, str) or len(name) > _LONGEST_NAME:
            raise TypeError(
                f"{where}: found a name that is {str(name)[:40]!r}, a {type(name).__name__}; "
                f"expected text of at most {_LONGEST_NAME} characters"
            )


def for_clients(error: Exception, said: str, debug: bool) -> str:
    """What a client is told of a policy that failed: no path of this machine, and no traceback.

    Args:
      error: of the policy.
      said: what it says.
      debug: whether clients are told all, with the traceback.
    """
    if debug:
        return f"{said}\n{''.join(traceback.format_exception(error))}"
    return without_paths(said)


def without_paths(text: str) -> str:
    """Text in which `...` stands for every absolute path."""
    return _PATH.sub("...", text)
