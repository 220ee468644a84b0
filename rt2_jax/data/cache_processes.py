"""Caches the shards of a task's source in processes of their own; none outlives its parent.

Each has its own TensorFlow, and memory for it: about half a gigabyte.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import seqio

from rt2_jax._processes import end_with_parent, portable, serving_processes
from rt2_jax.data.cache_shard import CacheRunner, CacheWork, cache_all_here, cache_shard
from rt2_jax.data.task_modules import open_task

_REPORT_S = 0.5  # between two reports of a process


def in_processes(jobs: int, modules: Sequence[str]) -> CacheRunner:
    """Who caches the shards: so many processes, each one shard after the other.

    An error in one ends the others; what they have finished stays. One process, or one for a source
    of one shard, is this one.

    Args:
      jobs: how many, at most.
      modules: those that register tasks; they are imported in each process, as
        `--module` imports them. A program of your own needs the guard `if __name__ == "__main__"`,
        as all that start processes.

    Raises:
      ValueError: fewer than one.
    """
    if jobs < 1:
        raise ValueError(f"jobs: found {jobs}, expected 1 or more")

    def run(task: seqio.Task, work: CacheWork, report: Callable[[int], None]) -> None:
        if min(jobs, len(work.shards)) == 1:
            return cache_all_here(task, work, report)
        shards = iter(range(len(work.shards)))
        steps = [0] * len(work.shards)
        count = min(jobs, len(work.shards))
        with serving_processes(count, _serve, work, tuple(modules)) as connections:
            busy: dict[Connection, int] = {}
            for connection in connections:
                _give(connection, next(shards), busy)
            while busy:
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    message = _receive(ready)
                    steps[busy[ready]] = message.steps
                    report(sum(steps))
                    if message.finished:
                        del busy[ready]
                        if (shard := next(shards, None)) is not None:
                            _give(ready, shard, busy)

    return run


@dataclass(frozen=True)
class _Progress:
    """How many steps of its shard a process has cached."""

    steps: int
    finished: bool


@dataclass(frozen=True)
class _Failed:
    error: Exception


def _give(connection: Connection, shard: int, busy: dict[Connection, int]) -> None:
    try:
        connection.send(shard)
    except ConnectionError as error:
        raise _killed() from error
    busy[connection] = shard


def _receive(connection: Connection) -> _Progress:
    try:
        message = connection.recv()
    except (EOFError, ConnectionError) as error:
        raise _killed() from error
    if isinstance(message, _Failed):
        raise message.error
    assert isinstance(message, _Progress)
    return message


def _killed() -> ChildProcessError:
    return ChildProcessError(
        "a caching process ended before its work; where it printed no error it was killed, perhaps "
        "for want of memory. The finished source shards are kept: run it again to continue, with "
        "fewer jobs"
    )


def _serve(connection: Connection, work: CacheWork, modules: Sequence[str]) -> None:
    """Caches what comes through the connection until it is closed."""
    end_with_parent()
    task: seqio.Task | None = None
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            shard = connection.recv()
            message: _Progress | _Failed
            try:
                task = task or open_task(work, modules)
                summary = cache_shard(task, work, shard, _reporter(connection))
                message = _Progress(summary.steps, finished=True)
            except Exception as error:
                error.add_note(f"in the process that cached {work.shards[shard]}:\n")
                error.add_note(traceback.format_exc())
                message = _Failed(portable(error))
            connection.send(message)


def _reporter(connection: Connection) -> Callable[[int], None]:
    last = time.monotonic()

    def report(steps: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_S:
            last = time.monotonic()
            connection.send(_Progress(steps, finished=False))

    return report
