"""Traces of a few steps, asked for before the run or while it goes."""

from __future__ import annotations

import pathlib
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax

REQUEST = "profile_now"
"""Touching the file of this name in the run's folder asks every process of a run for a trace."""

_LENGTH = 5  # steps of a trace that is asked for while the run goes
_LOOK_PERIOD = 5.0  # seconds between two looks for the file: folders may be far away


class Profiler:
    """Starts and stops `jax.profiler` traces between steps.

    A trace is taken of the steps given; of the next five after SIGUSR1; and of the next five after
    the file `profile_now` in the folder was touched. It lies in `<directory>/profile/step_<N>/`, N
    being the steps that were taken before it, for TensorBoard's profile plugin or xprof.

    Args:
      directory: of the run; None for no traces.
      steps: (first, end): a trace from when `first` steps were taken until `end` were.
    """

    def __init__(
        self, directory: pathlib.Path | None = None, steps: tuple[int, int] | None = None
    ) -> None:
        self._directory, self._steps = directory, steps
        self._asked = threading.Event()
        self._end: int | None = None
        self._looked = time.monotonic()
        self._touched = self._request_time()
        self._restore: Callable[[], Any] = lambda: None

    def __enter__(self) -> Profiler:
        if self._directory is not None and threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGUSR1, lambda *_: self._asked.set())
            self._restore = lambda: signal.signal(signal.SIGUSR1, before)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()
        if self._end is not None:
            jax.profiler.stop_trace()
            self._end = None

    def before_step(self, step: int, pending: Any) -> None:
        """Starts or stops a trace, where it is time.

        Args:
          step: steps taken so far.
          pending: a result of the last of them, which a trace must reach to.
        """
        if self._directory is None:
            return
        if self._end is not None:
            if step >= self._end:
                jax.block_until_ready(pending)
                jax.profiler.stop_trace()
                self._end = None
            return
        if self._steps is not None and self._steps[0] <= step < self._steps[1]:
            self._start(step, self._steps[1])
        elif self._is_asked():
            self._start(step, step + _LENGTH)

    def _start(self, step: int, end: int) -> None:
        assert self._directory is not None
        self._asked.clear()
        jax.profiler.start_trace(self._directory / "profile" / f"step_{step}")
        self._end = end

    def _is_asked(self) -> bool:
        now = time.monotonic()
        if now - self._looked >= _LOOK_PERIOD:
            self._looked, touched = now, self._request_time()
            if touched > self._touched:
                self._asked.set()
            self._touched = touched
        return self._asked.is_set()

    def _request_time(self) -> float:
        if self._directory is None:
            return 0.0
        try:
            return (self._directory / REQUEST).stat().st_mtime
        except OSError:
            return 0.0
