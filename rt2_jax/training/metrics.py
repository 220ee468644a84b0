"""What a step measures, and the plain numbers that come of many steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rt2_jax.models.losses import ExampleSums


@struct.dataclass
class SourceSums:
    """Sums over the examples of each source (task of the mixture), float32 [S].

    Attributes:
      loss: weighted cross-entropy and z-loss.
      correct: weight of the targets predicted right.
      weight: of the targets. In a robot source the weighted targets are the action tokens and the
        end, so `correct / weight` is its action-token accuracy.
      examples: how many.
    """

    loss: jax.Array
    correct: jax.Array
    weight: jax.Array
    examples: jax.Array

    @classmethod
    def of(cls, sums: ExampleSums, source_id: jax.Array, num_sources: int) -> SourceSums:
        """Adds up examples [B] by `source_id`, int32 [B], 0 to `num_sources` - 1."""

        def add(values: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(values, source_id, num_sources)

        return cls(
            loss=add(sums.cross_entropy + sums.z_loss),
            correct=add(sums.correct),
            weight=add(sums.weight),
            examples=add(jnp.ones_like(sums.weight)),
        )


@struct.dataclass
class StepMetrics:
    """What one training step measured; all but `sources` are [].

    Attributes:
      loss: float32, as it was minimised: normalised over the whole batch.
      gradient_norm: float32, global, before clipping.
      learning_rate: float32.
      skipped: bool, the loss or the gradient was not finite and nothing was changed.
      sources: sums for each source.
    """

    loss: jax.Array
    gradient_norm: jax.Array
    learning_rate: jax.Array
    skipped: jax.Array
    sources: SourceSums


def summarize(steps: Iterable[StepMetrics], sources: Sequence[str]) -> dict[str, float]:
    """Plain numbers of several steps.

    Steps that were skipped are counted and otherwise left out. A source of which no example came
    has no numbers.

    Args:
      steps: their metrics.
      sources: the name of each source, by its id.

    Returns:
      `loss`, `gradient_norm` and `learning_rate`, means over the steps; `skipped_steps`;
      `accuracy`, and for each source `<source>/loss` (per unit of target weight),
      `<source>/accuracy` and `<source>/examples`.
    """
    steps = list(steps)
    taken = [step for step in steps if not step.skipped]
    numbers = {"skipped_steps": float(len(steps) - len(taken))}
    if not taken:
        return numbers
    for name in ("loss", "gradient_norm", "learning_rate"):
        numbers[name] = float(np.mean([getattr(step, name) for step in taken], dtype=np.float64))
    sums = {
        name: np.stack([getattr(step.sources, name) for step in taken]).sum(0, dtype=np.float64)
        for name in ("loss", "correct", "weight", "examples")
    }
    numbers["accuracy"] = _ratio(sums["correct"].sum(), sums["weight"].sum())
    for i, source in enumerate(sources):
        if sums["examples"][i]:
            numbers[f"{source}/loss"] = _ratio(sums["loss"][i], sums["weight"][i])
            numbers[f"{source}/accuracy"] = _ratio(sums["correct"][i], sums["weight"][i])
            numbers[f"{source}/examples"] = float(sums["examples"][i])
    return numbers


def check_source_ids(batch: Mapping[str, np.ndarray], sources: Sequence[str]) -> None:
    """Refuses a batch whose examples belong to no source; their numbers would be lost.

    Raises:
      KeyError: there is no `source_id`.
      ValueError: an id is out of range.
    """
    if "source_id" not in batch:
        raise KeyError(f"batch: missing feature 'source_id'; found {sorted(batch)}")
    ids = np.asarray(batch["source_id"])
    if ids.size and not 0 <= ids.min() <= ids.max() < len(sources):
        raise ValueError(
            f"batch: source_id: found {ids.min()} to {ids.max()}, expected 0 to "
            f"{len(sources) - 1}: the sources are {', '.join(sources)}"
        )


def _ratio(total: float, weight: float) -> float:
    return float(total / weight) if weight else 0.0
