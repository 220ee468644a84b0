"""What is watched of a run beside its numbers: its time, its steps' end, its traces, its FLOPs."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pathlib
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import jax

from rt2_jax.training.devices import peak_flops
from rt2_jax.training.goodput import Ledger
from rt2_jax.training.profiling import Profiler
from rt2_jax.training.watchdog import Watchdog

LEDGER = "goodput.jsonl"


class Watch:
    """Goes through a run with the loop; without a folder it keeps nothing and traces nothing.

    Attributes:
      ledger: of the wall time.
      watchdog: ends a run that hangs.
      profiler: takes traces.

    Args:
      directory: of the run.
      begin: when the program started, in seconds since 1970; None for now.
      hang_timeout: see `LoopConfig`.
      profile_steps: see `Profiler`.
      count_flops: gives the FLOPs of a step; it is called in a thread, while the step compiles.
    """

    def __init__(
        self,
        directory: pathlib.Path | None = None,
        *,
        begin: float | None = None,
        hang_timeout: float = 0.0,
        profile_steps: tuple[int, int] | None = None,
        count_flops: Callable[[], float] | None = None,
    ) -> None:
        keeps = directory is not None and jax.process_index() == 0
        stacks = f"stacks_process_{jax.process_index()}.txt"
        self.ledger = Ledger(directory / LEDGER if directory and keeps else None, begin)
        self.watchdog = Watchdog(hang_timeout, directory / stacks if directory else None)
        self.profiler = Profiler(directory, profile_steps)
        self._count_flops = count_flops
        self._flops: concurrent.futures.Future[float] | None = None
        self._stack = contextlib.ExitStack()
        self._compiled = False
        self._step = 0

    def __enter__(self) -> Watch:
        self._stack.callback(lambda: self.ledger.write(self._step))
        self._stack.enter_context(self.profiler)
        self._stack.enter_context(self.watchdog)
        if self._count_flops is not None:
            pool = self._stack.enter_context(concurrent.futures.ThreadPoolExecutor(1, "flops"))
            self._flops = pool.submit(self._count_flops)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def begin(self, step: int) -> None:
        """The steps begin, after so many of earlier starts."""
        self._step = step
        self.ledger.enter(step)
        self.watchdog.be_patient(False)

    def waiting_for_data(self) -> contextlib.AbstractContextManager[None]:
        """Around the wait for a batch."""
        return self.ledger.phase("data_wait")

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Around what a save stops the steps for."""
        self.watchdog.be_patient(True)
        with self.ledger.phase("checkpoint"):
            yield
        self.watchdog.be_patient(False)
        self.ledger.write(self._step)

    @contextlib.contextmanager
    def stepping(self) -> Iterator[None]:
        """Around the call of the step, which compiles it when it is the first."""
        phase = "step" if self._compiled else "compile"
        self._compiled = True
        with self.ledger.phase(phase):
            yield

    def before_step(self, step: int, pending: Any) -> None:
        """Between two steps; see `Profiler.before_step`."""
        self.profiler.before_step(step, pending)

    def step_ended(self, step: int) -> None:
        """The numbers of a step are there; it is the last of so many."""
        self._step = step
        self.watchdog.step_ended()

    def speed_numbers(self, seconds_per_step: float) -> dict[str, float]:
        """What the devices do: `model_flops_per_second` of one of them, and where the peak is
        known, `mfu`; nothing before the FLOPs are counted.
        """
        if self._flops is None or not self._flops.done():
            return {}
        if (error := self._flops.exception()) is not None:
            warnings.warn(f"the FLOPs of a step could not be counted: {error}", stacklevel=2)
            self._flops = None
            return {}
        rate = self._flops.result() / seconds_per_step / jax.device_count()
        peak = peak_flops(jax.devices()[0].device_kind)
        return {"model_flops_per_second": rate, **({"mfu": rate / peak} if peak else {})}
