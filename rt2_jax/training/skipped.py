"""The steps of a run that were skipped, in a file, so that they can be looked at afterwards."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import Any

from rt2_jax.training.logs import JsonlLog
from rt2_jax.training.metrics import StepMetrics

SKIPPED_STEPS = "skipped_steps.jsonl"


class SkippedSteps:
    """`skipped_steps.jsonl` of a run, one line for each step whose loss or gradient is not finite.

    `step` is its number in `metrics.jsonl`, from 1, which `rt2 train --replay` takes; `batch` is
    the number of its batch, one less. Numbers that are not finite are texts: `nan`, `inf`, `-inf`.
    A restarted run takes its later steps again, so their lines go.

    Args:
      directory: of the run.
      start_step: the step that the run starts from.
      sources: the name of each source, by its id.
    """

    def __init__(self, directory: pathlib.Path, start_step: int, sources: Sequence[str]) -> None:
        self._log, self._sources = JsonlLog(directory / SKIPPED_STEPS, start_step), sources

    def add(self, step: int, metrics: StepMetrics) -> None:
        """Writes a step if it was skipped; `metrics` are on the host."""
        if not metrics.skipped:
            return
        sums = metrics.sources
        line: dict[str, Any] = {
            "batch": step - 1,
            "loss": plain(metrics.loss),
            "gradient_norm": plain(metrics.gradient_norm),
            "learning_rate": plain(metrics.learning_rate),
            "sources": {
                name: {"examples": int(sums.examples[i]), "loss": plain(sums.loss[i])}
                for i, name in enumerate(self._sources)
                if sums.examples[i]
            },
        }
        self._log.write(step, line)


def plain(number: Any) -> float | str:
    """A number as JSON can hold it."""
    return float(number) if math.isfinite(number) else str(float(number))
