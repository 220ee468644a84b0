"""The train loop: restore, step, log, save, stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from rt2_jax.training.checkpoints import Checkpoints
from rt2_jax.training.logs import Log
from rt2_jax.training.meter import Meter
from rt2_jax.training.meter import NotFiniteError as NotFiniteError
from rt2_jax.training.metrics import StepMetrics, check_source_ids
from rt2_jax.training.partitioning import Partitioner
from rt2_jax.training.skipped import SkippedSteps
from rt2_jax.training.step import TrainStep
from rt2_jax.training.stopping import stop_requests
from rt2_jax.training.train_state import TrainState, TrainStateInitializer
from rt2_jax.training.watching import Watch


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
      hang_timeout: seconds; when so long, and 20 median steps, no step ended, the stacks of all
        threads are written and the process ends with status 75; the first step and saves may take
        six times as long. 0 for no watching.

    Raises:
      ValueError: one is not positive, or the seed or the timeout is negative.
    """

    total_steps: int
    seed: int = 0
    log_period: int = 10
    save_period: int = 1000
    max_skipped_in_a_row: int = 10
    save_first: bool = False
    hang_timeout: float = 600.0

    def __post_init__(self) -> None:
        for name in ("total_steps", "log_period", "save_period", "max_skipped_in_a_row"):
            if getattr(self, name) <= 0:
                raise ValueError(
                    f"LoopConfig.{name}: found {getattr(self, name)}, expected a positive number"
                )
        for name in ("seed", "hang_timeout"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"LoopConfig.{name}: found {getattr(self, name)}, expected 0 or more"
                )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      state: the last; it is saved.
      stopped: SIGTERM, or a notice of preemption, came before `total_steps`.
    """

    state: TrainState
    stopped: bool


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
    watch: Watch | None = None,
    skipped: SkippedSteps | None = None,
) -> Outcome:
    """Takes steps until `total_steps` or until it is to stop (`stop_requests`), then saves.

    Args:
      config: lengths and periods.
      state: from `restore_or_init`; its memory is used again.
      train_step: from `make_train_step`.
      batches: at the batch of `state.step`.
      partitioner: that of the step.
      checkpoints: of the run.
      description: the item `rt2` of every checkpoint.
      sources: the name of each `source_id`.
      logs: what takes the numbers of every `log_period`, see `Meter`. After a restart the first of
        them cover the steps since it.
      watch: what measures and guards the run besides.
      skipped: gets the steps that are skipped.

    Raises:
      NotFiniteError: see `max_skipped_in_a_row`.
    """
    step, saved_step = int(state.step), checkpoints.latest_step
    rng = jax.random.fold_in(jax.random.key(config.seed), 1)
    watch = Watch() if watch is None else watch
    pending: StepMetrics | None = None
    with watch, stop_requests() as stop:
        watch.begin(step)
        if config.save_first and step == 0 and saved_step is None:
            with watch.saving():
                checkpoints.save(state, batches.get_state(), description)
            saved_step = step
        meter = Meter(config, sources, logs, watch, skipped)
        while step < config.total_steps and not stop(step):
            watch.before_step(step, pending)
            with watch.waiting_for_data():
                batch = next(batches)
            check_source_ids(batch, sources)
            with watch.stepping():
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
                with watch.saving():
                    checkpoints.save(state, batches.get_state(), description)
                saved_step = step
        if pending is not None:
            meter.add(step, pending)
        with watch.saving():
            if saved_step != step:
                checkpoints.save(state, batches.get_state(), description)
            checkpoints.wait()
    return Outcome(state, stopped=step < config.total_steps)
