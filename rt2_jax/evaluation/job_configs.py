"""What gin files of an evaluation or of an inference say: `runs/eval.gin` and `runs/infer.gin`."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """An evaluation on cached steps: the arguments of `evaluate_offline`.

    Attributes:
      checkpoint: a checkpoint, a run's folder for its latest, or `pretrained:NAME`.
      output_dir: gets `CHECKPOINT.SPLIT.json`; made if need be.
      mixture: a task of the checkpoint's mixture or several, or its name; None for all.
      cache_dir: what `rt2 data cache` wrote.
      split: that is cached there.
      limit: steps of each task, evenly spread; None for all.
      batch_size: examples at once.
      ema: whether the average of the parameters answers (item `ema`).
    """

    checkpoint: str
    output_dir: str
    mixture: str | tuple[str, ...] | None = None
    cache_dir: str = "cache"
    split: str = "validation"
    limit: int | None = None
    batch_size: int = 32
    ema: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names; () for all."""
        return names(self.mixture)


@dataclasses.dataclass(frozen=True)
class InferConfig:
    """Answers or scores as JSON lines: the arguments of `infer`.

    Attributes:
      checkpoint: a checkpoint, a run's folder for its latest, or `pretrained:NAME`.
      output_dir: gets the files; made if need be.
      mode: `predict` for answers, `score` for the log-probabilities of the recorded ones.
      mixture: a task of the checkpoint's mixture or several, or its name; None for all.
      cache_dir: what `rt2 data cache` wrote.
      split: that is cached there.
      limit: steps of each task, evenly spread; None for all.
      batch_size: examples at once.
      shard_id: which part of the steps this process takes.
      num_shards: into how many they are divided.
      ema: whether the average of the parameters answers (item `ema`).
    """

    checkpoint: str
    output_dir: str
    mode: str = "predict"
    mixture: str | tuple[str, ...] | None = None
    cache_dir: str = "cache"
    split: str = "validation"
    limit: int | None = None
    batch_size: int = 32
    shard_id: int = 0
    num_shards: int = 1
    ema: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names; () for all."""
        return names(self.mixture)


def names(mixture: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """One name, several or none as a tuple."""
    return (mixture,) if isinstance(mixture, str) else tuple(mixture or ())
