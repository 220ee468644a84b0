"""Parameters chosen by regular expressions over their paths, such as `vision/norm/scale`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


def check_patterns(patterns: Iterable[str], where: str) -> None:
    """Refuses what is no regular expression.

    Args:
      patterns: regular expressions.
      where: what errors call the field that has them.

    Raises:
      ValueError: the message names the field and the pattern.
    """
    for pattern in patterns:
        _compiled(pattern, where)


def matching(pattern: str, names: Sequence[str], where: str) -> list[str]:
    """The paths that a pattern matches as a whole.

    Args:
      pattern: a regular expression.
      names: all paths.
      where: what errors call the field that has it.

    Raises:
      ValueError: it is none, or matches nothing; the message has what is near.
    """
    compiled = _compiled(pattern, where)
    matched = [name for name in names if compiled.fullmatch(name)]
    if not matched:
        raise ValueError(
            f"{where}: {pattern!r} matches no parameter as a whole; near: "
            f"{', '.join(_near(pattern, names))}"
        )
    return matched


def first_matches(patterns: Sequence[str], names: Sequence[str], where: str) -> dict[str, str]:
    """Path -> the first of the patterns that matches it; paths without one are left out.

    Raises:
      ValueError: a pattern is none, matches nothing, or nothing that an earlier one left.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        matched = matching(pattern, names, where)
        left = [name for name in matched if name not in found]
        if not left:
            before = found[matched[0]]
            raise ValueError(
                f"{where}: {pattern!r} stands behind {before!r}, which takes {matched[0]} before "
                "it; the first that matches counts: write it before"
            )
        found.update(dict.fromkeys(left, pattern))
    return found


def _compiled(pattern: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{where}: {pattern!r} is no regular expression: {error}") from None


def _near(pattern: str, names: Sequence[str]) -> list[str]:
    """Parameters and parts of the tree that may have been meant."""
    parts = {f"{name[:i]}/.*" for name in names for i, at in enumerate(name) if at == "/"}
    known = sorted({*names, *parts})
    near = difflib.get_close_matches(pattern, known, n=3, cutoff=0.5)
    return near or sorted({f"{name.split('/')[0]}/.*" for name in names if "/" in name})
