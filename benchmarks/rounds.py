"""Sides of a comparison, each in a process of its own, that take turns in rounds.

So a change in the machine's load meets every side, and what one imports burdens no other.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Protocol

from rt2_jax.benchmarks.processes import cpu_seconds


class Side(Protocol):
    """One side. It is hashable and can be pickled; its work is done in its own process."""

    @property
    def turn(self) -> int:
        """Pieces of work in a turn."""

    @property
    def ahead(self) -> int:
        """Pieces that it may have made while others had their turn, in threads and buffers."""

    def __hash__(self) -> int: ...

    def pieces(self) -> Iterator[int]:
        """Endless; each piece of work gives the number of examples that it made."""


@dataclass(frozen=True)
class Turn:
    """One side's part of a round.

    Attributes:
      per_cpu_second: examples per second of CPU time, user and system, of all its processes and
        threads since its last turn, so that work done between turns counts.
      per_second: examples per second of the clock, without those that lay ready at the start.
    """

    per_cpu_second: float
    per_second: float


def take_turns(
    sides: Mapping[str, Side], rounds: int, report: Callable[[str], None]
) -> dict[str, list[Turn]]:
    """Runs all sides in rounds, every other round in reverse; round 0 warms up and is left out.

    Args:
      sides: by name.
      rounds: how many turns each side has.
      report: called with a line when a side or a round begins.
    """
    context = multiprocessing.get_context("spawn")
    turns: dict[str, list[Turn]] = {name: [] for name in sides}
    with contextlib.ExitStack() as stack:
        started = {}
        for name, side in sides.items():
            report(f"warming up: {name}")
            started[name] = stack.enter_context(_process(side, context))
            started[name]()
        for number in range(rounds):
            report(f"round {number + 1} of {rounds}")
            for name in list(sides)[:: -1 if number % 2 else 1]:
                turns[name].append(started[name]())
    return turns


def ratios(turns: Mapping[str, list[Turn]], above: str, below: str) -> list[float]:
    """Of two sides' examples per CPU-second, round by round."""
    pairs = zip(turns[above], turns[below], strict=True)
    return [a.per_cpu_second / b.per_cpu_second for a, b in pairs]


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {
        "median": statistics.median(values),
        "least": min(values),
        "greatest": max(values),
    }


@contextlib.contextmanager
def _process(side: Side, context: BaseContext) -> Iterator[Callable[[], Turn]]:
    """A process for a side; the call is a turn."""
    with ProcessPoolExecutor(1, mp_context=context) as process:
        try:
            yield lambda: process.submit(_take_turn, side).result()
        finally:
            with contextlib.suppress(BrokenProcessPool):  # the error that broke it says more
                process.submit(_close, side).result()


class _Running:
    """A side at work, in its own process."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.pieces = side.pieces()
        self.cpu = cpu_seconds()

    def take_turn(self) -> Turn:
        made = sum(itertools.islice(self.pieces, self.side.ahead))
        start = time.perf_counter()
        timed = sum(itertools.islice(self.pieces, self.side.turn))
        seconds = time.perf_counter() - start
        before, self.cpu = self.cpu, cpu_seconds()
        return Turn((made + timed) / (self.cpu - before), timed / seconds)


@functools.cache
def _running(side: Side) -> _Running:
    """The one of this process."""
    return _Running(side)


def _take_turn(side: Side) -> Turn:
    return _running(side).take_turn()


def _close(side: Side) -> None:
    pieces = _running(side).pieces
    if isinstance(pieces, Generator):
        pieces.close()
