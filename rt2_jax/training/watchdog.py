"""Ends a run in which no step ends any more, and says what every thread was doing."""

from __future__ import annotations

import faulthandler
import os
import pathlib
import statistics
import sys
import threading
import time
from collections import deque
from types import TracebackType

from rt2_jax.training.exits import RETRYABLE

PATIENCE = 6.0
"""How much longer than between two steps compilation and a save may take."""

_USUAL = 20.0  # so many usual steps may pass without one that ends
_REMEMBERED = 64


class Watchdog:
    """A thread that waits for steps to end.

    A step may take the longer of `timeout` and 20 median steps; until the first has ended, and
    while the run is being prepared, compiled or saved, `PATIENCE` times as long. After that every
    thread's stack is written to stderr and to `stacks`, and the process ends at once with the
    status `RETRYABLE`: what hangs cannot be asked to end.

    Args:
      timeout: in seconds; 0 for no watching.
      stacks: the file that gets the stacks too; None for none.
    """

    def __init__(self, timeout: float = 0.0, stacks: pathlib.Path | None = None) -> None:
        self._timeout, self._stacks = timeout, stacks
        self._durations: deque[float] = deque(maxlen=_REMEMBERED)
        self._last = time.monotonic()
        self._patient = True
        self._steps = 0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Watchdog:
        self._last = time.monotonic()
        if self._timeout:
            self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def step_ended(self) -> None:
        """A step's numbers are there."""
        now = time.monotonic()
        if self._steps:  # the first one's time is compilation
            self._durations.append(now - self._last)
        self._steps += 1
        self._last = now

    def be_patient(self, patient: bool) -> None:
        """What is done now may, or may no longer, take as long as compilation or a save."""
        if self._patient and not patient:
            self._last = time.monotonic()  # what took long is over
        self._patient = patient

    @property
    def limit(self) -> float:
        """Seconds that may pass now until a step ends."""
        usual = _USUAL * statistics.median(self._durations) if self._durations else 0.0
        slow = self._patient or not self._steps
        return max(self._timeout, usual) * (PATIENCE if slow else 1.0)

    def _watch(self) -> None:
        period = min(self._timeout / 10, 10.0)
        looked = time.monotonic()
        while not self._done.wait(period):
            now = time.monotonic()
            if now - looked > 5 * period + 1:
                self._last = now  # the whole process was stopped: nobody could end a step
            looked = now
            if now - self._last > self.limit:
                self._end(now - self._last)

    def _end(self, seconds: float) -> None:
        reason = (
            f"no step ended for {seconds:.0f} s (LoopConfig.hang_timeout is {self._timeout:g} s; "
            f"{self._steps} steps ended before). Every thread's stack:\n"
        )
        try:
            sys.stderr.write(f"rt2 train: error: {reason}")
            sys.stderr.flush()
            faulthandler.dump_traceback(all_threads=True)
            if self._stacks is not None:
                with self._stacks.open("a") as file:
                    file.write(time.strftime("%Y-%m-%d %H:%M:%S ") + reason)
                    file.flush()
                    faulthandler.dump_traceback(file, all_threads=True)
        finally:
            os._exit(RETRYABLE)
