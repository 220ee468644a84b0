"""What stands behind `--` on the command line, for verbs that hand it on to another program."""

from __future__ import annotations

from collections.abc import Sequence

PASSED_ON = "passed_on"
"""A parser that has a default of this name is given all that stands behind `--` under it."""


def split_off(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments before the first `--`, and those behind it."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:end]), list(arguments[end + 1 :])
