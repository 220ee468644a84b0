"""What a step measures, and the plain numbers that come of many steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rt2_jax.models.config import PADDING
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
      tokens_per_image: positions of a picture in the model's row; 0 where they are not counted.

    Raises:
      ValueError: another number of weights or rows, or a weight that is negative or not finite.
    """

    names: tuple[str, ...]
    loss_weights: np.ndarray | None = None
    accuracy_positions: np.ndarray | None = None
    tokens_per_image: int = 0

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

    def sums(self, sums: ExampleSums, batch: Mapping[str, jax.Array]) -> SourceSums:
        """What these examples [B] measured, for each source."""
        images = jnp.sum(batch["image_mask"], axis=1) if "image_mask" in batch else 0
        slots = batch["image_mask"].shape[1] if "image_mask" in batch else 0
        targets = batch["decoder_target_tokens"]
        real = jnp.sum(targets != PADDING, axis=1)
        useful, computed = real + images * self.tokens_per_image, targets.shape[1]
        if "encoder_input_tokens" in batch:
            prompt = batch["encoder_input_tokens"]
            useful += jnp.sum(prompt != PADDING, axis=1)
            computed += slots * self.tokens_per_image + prompt.shape[1]
        elif "decoder_causal_attention" in batch:  # the row has a place for every slot's picture
            useful -= slots * self.tokens_per_image
        else:
            computed += slots * self.tokens_per_image

        def add(values: Any) -> jax.Array:
            values = jnp.broadcast_to(jnp.asarray(values, jnp.float32), sums.weight.shape)
            return jax.ops.segment_sum(values, batch["source_id"], len(self.names))

        return SourceSums(
            loss=add(sums.cross_entropy + sums.z_loss),
            correct=add(sums.correct),
            weight=add(sums.weight),
            accuracy_weight=add(sums.accuracy_weight),
            examples=add(1),
            images=add(images),
            target_tokens=add(real),
            target_positions=add(targets.shape[1]),
            useful_tokens=add(useful),
            computed_tokens=add(computed),
        )


@struct.dataclass
class SourceSums:
    """Sums over the examples of each source (task of the mixture), float32 [S].

    Attributes:
      loss: weighted cross-entropy and z-loss.
      correct: accuracy weight of the targets predicted right.
      weight: of the targets.
      accuracy_weight: of the targets that count in the accuracy, see `SourceRules`.
      examples: how many.
      images: pictures that are there.
      target_tokens: targets that are not padding.
      target_positions: targets, padding included.
      useful_tokens: positions of the model's rows that are neither padding nor of a slot without a
        picture; a picture's are counted once, in the encoder or in the decoder's row.
      computed_tokens: all positions of these rows.
    """

    loss: jax.Array
    correct: jax.Array
    weight: jax.Array
    accuracy_weight: jax.Array
    examples: jax.Array
    images: jax.Array
    target_tokens: jax.Array
    target_positions: jax.Array
    useful_tokens: jax.Array
    computed_tokens: jax.Array


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
      `accuracy`, `useful_tokens` and `target_tokens`, and for each source `<source>/loss` (per unit
      of target weight), `<source>/accuracy` (teacher-forced, of the targets that count, see
      `SourceRules`), `<source>/examples` and `<source>/useful_tokens`. `useful_tokens` is the share
      of the computed positions that hold something, `target_tokens` that of the targets.
    """
    steps = list(steps)
    taken = [step for step in steps if not step.skipped]
    numbers = {"skipped_steps": float(len(steps) - len(taken))}
    if not taken:
        return numbers
    for name in ("loss", "gradient_norm", "learning_rate"):
        numbers[name] = float(np.mean([getattr(step, name) for step in taken], dtype=np.float64))
    sums = total_sums(taken)
    numbers["accuracy"] = _ratio(sums["correct"].sum(), sums["accuracy_weight"].sum())
    numbers["useful_tokens"] = _ratio(sums["useful_tokens"].sum(), sums["computed_tokens"].sum())
    numbers["target_tokens"] = _ratio(sums["target_tokens"].sum(), sums["target_positions"].sum())
    for i, source in enumerate(sources):
        if sums["examples"][i]:
            numbers[f"{source}/loss"] = _ratio(sums["loss"][i], sums["weight"][i])
            numbers[f"{source}/accuracy"] = _ratio(sums["correct"][i], sums["accuracy_weight"][i])
            numbers[f"{source}/examples"] = float(sums["examples"][i])
            useful, computed = sums["useful_tokens"][i], sums["computed_tokens"][i]
            numbers[f"{source}/useful_tokens"] = _ratio(useful, computed)
    return numbers


def total_sums(steps: Sequence[StepMetrics]) -> dict[str, np.ndarray]:
    """The fields of `SourceSums`, added up over the steps: float64 [S]."""
    return {
        field.name: np.stack([getattr(step.sources, field.name) for step in steps]).sum(
            0, dtype=np.float64
        )
        for field in dataclasses.fields(SourceSums)
    }


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
