"""Which checkpoints of a run are kept: the latest, those of round steps, the best."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from orbax.checkpoint import checkpoint_managers


@dataclasses.dataclass(frozen=True)
class KeepBest:
    """The best checkpoints by a number that stands beside them.

    It is looked for, by the checkpoint's step, in the lines of `metrics.jsonl` (training) and of
    `eval/*.jsonl` (`rt2 eval --watch`), `{"step": ..., name: number, ...}`; the last line wins.
    A checkpoint without the number is not among the best, and kept while it is among the latest:
    keep so many of these that an evaluation has the time to end.

    Attributes:
      directory: of the run.
      metric: the number's name.
      mode: `min` or `max`.
      count: how many are kept.
    """

    directory: pathlib.Path
    metric: str
    mode: str = "min"
    count: int = 1

    def best_steps(self, steps: Sequence[int]) -> set[int]:
        """Those of `steps` that are kept; of equally good ones the later."""
        found = self._values()
        sign = 1 if self.mode == "min" else -1
        known = sorted((sign * found[step], -step) for step in steps if step in found)
        return {-step for _, step in known[: self.count]}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Orbax's `PreservationPolicy`."""
        best = self.best_steps([each.step for each in checkpoints])
        return [each.step in best for each in checkpoints]

    def _values(self) -> dict[int, float]:
        values = {}
        files = [self.directory / "metrics.jsonl", *sorted(self.directory.glob("eval/*.jsonl"))]
        for path in files:
            if not path.is_file():
                continue
            for line in path.read_text().splitlines():
                try:
                    numbers = json.loads(line)
                    value = float(numbers[self.metric])
                except (ValueError, KeyError, TypeError):  # another's line, or one half written
                    continue
                if math.isfinite(value):
                    values[int(numbers["step"])] = value
        return values


def preservation_policy(
    keep: int | None, keep_period: int | None, keep_best: KeepBest | None
) -> Any:
    """Orbax's policy: a checkpoint is kept for any of the reasons; all are where `keep` is None."""
    policies: list[Any] = [checkpoint_managers.LatestN(keep)]
    if keep_period is not None:
        policies.append(checkpoint_managers.EveryNSteps(keep_period))
    if keep_best is not None:
        policies.append(keep_best)
    return checkpoint_managers.AnyPreservationPolicy(policies)
