"""Progress of reading steps whose number is not known before: a line on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def reading(verb: str) -> Iterator[Callable[[str, int], None]]:
    """Yields what is to be called with a task or split and the number of its steps so far.

    On a terminal one line changes in place; elsewhere a line is written every ten seconds.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(f"{verb}: reading") as status:
            yield lambda what, steps: status.update(f"{verb}: {what}, {steps:,} steps read")
        return
    last = time.monotonic()

    def report(what: str, steps: int) -> None:
        nonlocal last
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            print(f"rt2 data {verb}: {what}, {steps:,} steps read", file=sys.stderr, flush=True)

    yield report
