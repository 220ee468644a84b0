"""What a step measures, and the plain numbers that come of many steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rt2_jax.models.losses import ExampleSums


@dataclasses.dataclass(frozen=True, eq=False)
class SourceRules:
    """What counts of the examples of each source (task of the mixture).

    Attributes:
      names: of the sources, by their id.
      loss_weights: what the loss of a source's examples is multiplied by, float [S]; None for 1.
      accuracy_positions: bool [S, L], which weighted targets count in a source's accuracy; None
        for all. Those of a robot are the action tokens without `terminate`, which is nearly always
        the same, and without the end, which always is.

    Raises:
      ValueError: another number of weights or rows, or a weight that is negative or not finite.
    """

    names: tuple[str, ...]
    loss_weights: np.ndarray | None = None
    accuracy_positions: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("loss_weights", "accuracy_positions"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(self.names):
                raise ValueError(
                    f"SourceRules.{name}: found {len(rows)} for {len(self.names)} sources: "
                    f"{', '.join(self.names)}"
                )
        weights = np.ones(0) if self.loss_weights is None else self.loss_weights
        if not np.all(np.isfinite(weights) & (weights >= 0)):
            raise ValueError(
                f"SourceRules.loss_weights: found {weights.tolist()}, expected finite, from 0"
            )

    def apply(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The batch with weighted losses and `decoder_accuracy_weights`."""
        source, weights = batch["source_id"], batch["decoder_loss_weights"]
        counts = (weights > 0).astype(jnp.float32)
        if self.accuracy_positions is not None:
            counts *= jnp.asarray(self.accuracy_positions)[source]
        if self.loss_weights is not None:
            weights *= jnp.asarray(self.loss_weights, jnp.float32)[source][:, None]
        return {**batch, "decoder_loss_weights": weights, "decoder_accuracy_weights": counts}


@struct.dataclass
class SourceSums:
    """Sums over the examples of each source (task of the mixture), float32 [S].

    Attributes:
      loss: weighted cross-entropy and z-loss.
      correct: accuracy weight of the targets predicted right.
      weight: of the targets.
      accuracy_weight: of the targets that count in the accuracy, see `SourceRules`.
      examples: how many.
    """

    loss: jax.Array
    correct: jax.Array
    weight: jax.Array
    accuracy_weight: jax.Array
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
            accuracy_weight=add(sums.accuracy_weight),
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
      `<source>/accuracy` (teacher-forced, of the targets that count, see `SourceRules`) and
      `<source>/examples`.
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
        for name in ("loss", "correct", "weight", "accuracy_weight", "examples")
    }
    numbers["accuracy"] = _ratio(sums["correct"].sum(), sums["accuracy_weight"].sum())
    for i, source in enumerate(sources):
        if sums["examples"][i]:
            numbers[f"{source}/loss"] = _ratio(sums["loss"][i], sums["weight"][i])
            numbers[f"{source}/accuracy"] = _ratio(sums["correct"][i], sums["accuracy_weight"][i])
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
