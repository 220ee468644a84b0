"""Collects the numbers of steps and hands them to the logs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import jax

from rt2_jax.training.devices import memory_numbers
from rt2_jax.training.logs import Log
from rt2_jax.training.metrics import StepMetrics, summarize, total_sums
from rt2_jax.training.skipped import SkippedSteps
from rt2_jax.training.watching import Watch

MEASURED = frozenset(
    {
        "seconds_per_step",
        "examples_per_second",
        "images_per_second",
        "tokens_per_second",
        "target_positions_per_second",
        "data_wait",
        "model_flops_per_second",
        "mfu",
        "device_memory_peak_bytes",
        "device_memory_limit_bytes",
        "host_memory_peak_bytes",
    }
)
"""The numbers that clocks and memory gave; all others are the same whenever a run is repeated."""


class NotFiniteError(ArithmeticError):
    """Too many steps in a row had a loss or a gradient that is not finite."""


class Periods(Protocol):
    """What the meter needs to know of `LoopConfig`."""

    @property
    def total_steps(self) -> int: ...  # noqa: D102
    @property
    def log_period(self) -> int: ...  # noqa: D102
    @property
    def max_skipped_in_a_row(self) -> int: ...  # noqa: D102


class Meter:
    """Collects the numbers of steps and hands them to the logs."""

    def __init__(
        self,
        config: Periods,
        sources: Sequence[str],
        logs: Sequence[Log],
        watch: Watch,
        skipped: SkippedSteps | None = None,
    ) -> None:
        self._config, self._sources, self._logs, self._watch = config, sources, logs, watch
        self._skipped = skipped
        self._steps: list[StepMetrics] = []
        self._skipped_in_a_row = 0
        self._begin, self._before = time.perf_counter(), dict(watch.ledger.seconds)

    def add(self, step: int, metrics: StepMetrics) -> None:
        """Waits for the numbers of a step and takes them.

        Raises:
          NotFiniteError: see `LoopConfig.max_skipped_in_a_row`.
        """
        metrics = jax.device_get(metrics)
        self._watch.step_ended(step)
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
        self._watch.ledger.write(step)
        now, spent = time.perf_counter(), dict(self._watch.ledger.seconds)
        compiling, waiting = (
            spent[phase] - self._before[phase] for phase in ("compile", "data_wait")
        )
        seconds = max(now - self._begin - compiling, 1e-9)
        sums = {name: float(values.sum()) for name, values in total_sums(self._steps).items()}
        seconds_per_step = seconds / len(self._steps)
        numbers = {
            **summarize(self._steps, self._sources),
            "seconds_per_step": seconds_per_step,
            "examples_per_second": sums["examples"] / seconds,
            "images_per_second": sums["images"] / seconds,
            "tokens_per_second": sums["useful_tokens"] / seconds,
            "target_positions_per_second": sums["target_positions"] / seconds,
            "data_wait": waiting / seconds,
            **self._watch.speed_numbers(seconds_per_step),
            **memory_numbers(),
        }
        for log in self._logs:
            log.write(step, numbers)
        self._steps, self._begin, self._before = [], now, spent
