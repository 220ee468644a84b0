"""The train loop: restore, step, log, save, stop."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from rt2_jax.training.checkpoints import Checkpoints
from rt2_jax.training.logs import Log
from rt2_jax.training.metrics import StepMetrics, check_source_ids, summarize
from rt2_jax.training.partitioning import Partitioner
from rt2_jax.training.skipped import SkippedSteps
from rt2_jax.training.step import TrainStep
from rt2_jax.training.train_state import TrainState, TrainStateInitializer


class Batches(Protocol):
    """The data of a run, exactly resumable: batch number *s* is a function of seed and *s*."""

    def __next__(self) -> Mapping[str, np.ndarray]:
        """This process's rows of the next global batch."""

    def get_state(self) -> Mapping[str, Any]:
        """Plain JSON that names the next batch, and what must be the same to give it."""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes there; raises ValueError if the data is not that of the state."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How long a run is and what it does on the way.

    Attributes:
      total_steps: the run ends when so many were taken, those of earlier starts included.
      seed: of the first parameters and of dropout.
      log_period: numbers go to the logs after every so many steps.
      save_period: a checkpoint after every so many steps, and at the end.
      max_skipped_in_a_row: so many steps in a row that are not finite end the run.
      save_first: a checkpoint of step 0 too: of the parameters that the run began with.

    Raises:
      ValueError: one is not positive, or the seed is negative.
    """

    total_steps: int
    seed: int = 0
    log_period: int = 10
    save_period: int = 1000
    max_skipped_in_a_row: int = 10
    save_first: bool = False

    def __post_init__(self) -> None:
        for name in ("total_steps", "log_period", "save_period", "max_skipped_in_a_row"):
            if getattr(self, name) <= 0:
                raise ValueError(
                    f"LoopConfig.{name}: found {getattr(self, name)}, expected a positive number"
                )
        if self.seed < 0:
            raise ValueError(f"LoopConfig.seed: found {self.seed}, expected 0 or more")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      state: the last; it is saved.
      stopped: SIGTERM came before `total_steps`.
    """

    state: TrainState
    stopped: bool


class NotFiniteError(ArithmeticError):
    """Too many steps in a row had a loss or a gradient that is not finite."""


def restore_or_init(
    initializer: TrainStateInitializer, batches: Batches, checkpoints: Checkpoints, seed: int
) -> TrainState:
    """The latest checkpoint's state, with the data moved to where it was; else a new state.

    Raises:
      ValueError: the checkpoint is damaged, or holds other weights or other data.
    """
    if checkpoints.latest_step is None:
        return initializer.init(jax.random.key(seed))
    state, dataset = checkpoints.restore(initializer.abstract)
    batches.set_state(dataset)
    return state


def train(
    config: LoopConfig,
    state: TrainState,
    train_step: TrainStep,
    batches: Batches,
    partitioner: Partitioner,
    checkpoints: Checkpoints,
    description: Mapping[str, Any],
    sources: Sequence[str],
    logs: Sequence[Log] = (),
    skipped: SkippedSteps | None = None,
) -> Outcome:
    """Takes steps until `total_steps` or SIGTERM, then saves.

    Args:
      config: lengths and periods.
      state: from `restore_or_init`; its memory is used again.
      train_step: from `make_train_step`.
      batches: at the batch of `state.step`.
      partitioner: that of the step.
      checkpoints: of the run.
      description: the item `rt2` of every checkpoint.
      sources: the name of each `source_id`.
      logs: what takes the numbers of every `log_period`: those of `summarize`,
        `seconds_per_step`, `examples_per_second` and `data_wait`, the part of the time spent
        waiting for batches. After a restart the first of them cover the steps since it.
      skipped: gets the steps that are skipped.

    Raises:
      NotFiniteError: see `max_skipped_in_a_row`.
    """
    step, saved_step = int(state.step), checkpoints.latest_step
    rng = jax.random.fold_in(jax.random.key(config.seed), 1)
    meter = _Meter(config, sources, logs, skipped)
    pending: StepMetrics | None = None
    with _sigterm() as stopped:
        if config.save_first and step == 0 and saved_step is None:
            checkpoints.save(state, batches.get_state(), description)
            saved_step = step
        while step < config.total_steps and not stopped.is_set():
            with meter.waiting_for_data():
                batch = next(batches)
            check_source_ids(batch, sources)
            state, metrics = train_step(state, partitioner.to_devices(batch), rng)
            # The numbers of the step before: fetching them does not hold up the one just begun.
            if pending is not None:
                meter.add(step, pending)
            pending = metrics
            step += 1
            if step % config.save_period == 0:
                # Logged before it is saved: a restart from here does not take this step again.
                meter.add(step, pending)
                pending = None
                checkpoints.save(state, batches.get_state(), description)
                saved_step = step
        if pending is not None:
            meter.add(step, pending)
        if saved_step != step:
            checkpoints.save(state, batches.get_state(), description)
        checkpoints.wait()
    return Outcome(state, stopped=step < config.total_steps)


class _Meter:
    """Collects the numbers of steps and hands them to the logs."""

    def __init__(
        self,
        config: LoopConfig,
        sources: Sequence[str],
        logs: Sequence[Log],
        skipped: SkippedSteps | None,
    ) -> None:
        self._config, self._sources, self._logs = config, sources, logs
        self._skipped = skipped
        self._steps: list[StepMetrics] = []
        self._skipped_in_a_row = 0
        self._begin, self._waited = time.perf_counter(), 0.0

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    def add(self, step: int, metrics: StepMetrics) -> None:
        metrics = jax.device_get(metrics)
        self._steps.append(metrics)
        if self._skipped is not None:
            self._skipped.add(step, metrics)
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if metrics.skipped else 0
        if self._skipped_in_a_row == self._config.max_skipped_in_a_row:
            raise NotFiniteError(
                f"the loss or the gradient was not finite in the last {self._skipped_in_a_row} "
                f"steps, batches {step - self._skipped_in_a_row} to {step - 1}; lower the learning "
                f"rate or look at these batches: rt2 train ... --replay {step}"
            )
        if step % self._config.log_period == 0 or step == self._config.total_steps:
            self._write(step)

    def _write(self, step: int) -> None:
        seconds = time.perf_counter() - self._begin
        examples = sum(float(np.sum(each.sources.examples)) for each in self._steps)
        numbers = {
            **summarize(self._steps, self._sources),
            "seconds_per_step": seconds / len(self._steps),
            "examples_per_second": examples / seconds,
            "data_wait": self._waited / seconds,
        }
        for log in self._logs:
            log.write(step, numbers)
        self._steps, self._begin, self._waited = [], time.perf_counter(), 0.0


@contextlib.contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, while this lasts; the program then ends by itself."""
    received = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
