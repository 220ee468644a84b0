"""Processes of the simulation: results in order, and none of them outlives its parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from rt2_jax._processes import end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")


def count_jobs(jobs: int | None) -> int:
    """How many processes are asked for: as many as there are processors if None.

    Raises:
      ValueError: fewer than one.
    """
    jobs = os.cpu_count() or 1 if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs: found {jobs}, expected 1 or more")
    return jobs


@contextlib.contextmanager
def ordered_results(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    jobs: int,
    start: Callable[..., None],
    start_with: tuple[Any, ...],
    doing: str,
) -> Iterator[Iterator[Result]]:
    """Gives the results of all items in their order, from processes of their own.

    Args:
      function: of a module; runs in the processes.
      items: what it is called with.
      jobs: how many processes, at most.
      start: of a module; called once in each process before anything else.
      start_with: its arguments.
      doing: what the processes do, for the error: `recording`.

    Raises:
      OSError: a process was killed.
    """
    executor = ProcessPoolExecutor(
        max_workers=max(1, min(jobs, len(items))),
        mp_context=multiprocessing.get_context("spawn"),  # a renderer may have started threads
        initializer=_start_worker,
        initargs=(start, start_with),
    )
    try:
        # Ctrl-C reaches all processes of a terminal; the workers inherit that it's for the parent.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        results = executor.map(function, items)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield results
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"a {doing} process was killed, perhaps for want of memory; the finished shards are "
            "kept: run it again to continue, with fewer jobs"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker(start: Callable[..., None], start_with: tuple[Any, ...]) -> None:
    end_with_parent()
    start(*start_with)
