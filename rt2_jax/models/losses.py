"""Cross-entropy of tokens and the sums that losses and metrics are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class MetricSum:
    """A mean as its sum and its weight: sums add up over batches, microbatches and hosts."""

    total: jax.Array
    weight: jax.Array

    def __add__(self, other: MetricSum) -> MetricSum:
        return MetricSum(self.total + other.total, self.weight + other.weight)

    def compute(self) -> jax.Array:
        """The mean; 0 where there is nothing to average."""
        return self.total / jnp.where(self.weight == 0, 1, self.weight)


@struct.dataclass
class ExampleSums:
    """Sums over the targets of each example, all float32 [B].

    From them come the loss, and every metric of a source: add up its examples (`source_id`).

    Attributes:
      cross_entropy: weighted, without the z-loss.
      z_loss: weighted.
      correct: accuracy weight of the targets that have the largest logit.
      weight: of the targets.
      accuracy_weight: of the targets that count in the accuracy; without such weights, `weight`.
    """

    cross_entropy: jax.Array
    z_loss: jax.Array
    correct: jax.Array
    weight: jax.Array
    accuracy_weight: jax.Array


def token_cross_entropy(
    logits: jax.Array, targets: jax.Array, z_loss: float = 0.0, label_smoothing: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy and z-loss of every token, as T5X's `compute_weighted_cross_entropy`.

    Smoothing moves `label_smoothing` of the target's probability evenly onto the other tokens; the
    entropy of that distribution is taken off, so that a perfect prediction costs 0. The z-loss,
    `z_loss * log(Z) ** 2`, keeps the softmax normalizer near 1 (Mesh-TensorFlow; Chowdhery et al.
    2022, section 5).

    Args:
      logits: float [..., vocab].
      targets: int32 [...].
      z_loss: coefficient.
      label_smoothing: 0 to below 1.

    Returns:
      Two float32 [...]: the cross-entropy, and the z-loss that is to be added to it.
    """
    logits = logits.astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    target = _logit_of(targets, logits)
    vocab = logits.shape[-1]
    confidence, other = 1.0 - label_smoothing, label_smoothing / (vocab - 1)
    cross_entropy = log_z - confidence * target
    if label_smoothing:
        cross_entropy -= other * (logits.sum(axis=-1) - target)
        cross_entropy += confidence * jnp.log(confidence) + label_smoothing * jnp.log(other)
    return cross_entropy, z_loss * jnp.square(log_z)


def _logit_of(targets: jax.Array, logits: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]


def example_sums(
    logits: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    accuracy_weights: jax.Array | None = None,
) -> ExampleSums:
    """Logits float [B, L, vocab], targets int32 [B, L], weights float32 [B, L] -> sums [B]."""
    if accuracy_weights is None:
        accuracy_weights = weights
    cross_entropy, z = token_cross_entropy(logits, targets, z_loss, label_smoothing)
    # Equal to a comparison with the argmax but for ties, and much faster on CPUs.
    correct = _logit_of(targets, logits) >= jnp.max(logits, axis=-1)
    return ExampleSums(
        cross_entropy=jnp.sum(cross_entropy * weights, axis=1),
        z_loss=jnp.sum(z * weights, axis=1),
        correct=jnp.sum(correct * accuracy_weights, axis=1),
        weight=jnp.sum(weights, axis=1),
        accuracy_weight=jnp.sum(accuracy_weights, axis=1),
    )


def normalize_weights(
    factor: float | str | None, batch: Mapping[str, Any]
) -> tuple[jax.Array, jax.Array]:
    """The target weights float32 [B, L] and what the summed loss is divided by.

    T5X's rules: None, a number, `NUM_REAL_TARGET_TOKENS` (the sum of the weights: the number of
    tokens, where all weigh 1), `NUM_TOTAL_TARGET_TOKENS` (B * L), or `AVERAGE_PER_SEQUENCE` (every
    example counts the same, however long: its weights are divided by their sum, the loss by the
    number of examples). Of a batch that is accumulated in parts, take them from the whole before it
    is divided.

    Raises:
      ValueError: another factor.
    """
    targets = batch["decoder_target_tokens"]
    weights = batch["decoder_loss_weights"].astype(jnp.float32)
    if factor is None:
        return weights, jnp.float32(1)
    if not isinstance(factor, str):
        return weights, jnp.float32(factor)
    if factor == "NUM_REAL_TARGET_TOKENS":
        return weights, jnp.sum(weights)
    if factor == "NUM_TOTAL_TARGET_TOKENS":
        return weights, jnp.float32(targets.size)
    if factor == "AVERAGE_PER_SEQUENCE":
        total = jnp.sum(weights, axis=1, keepdims=True)
        weights /= jnp.where(total == 0, 1, total)
        return weights, jnp.sum(weights)
    raise ValueError(
        f"loss_normalizing_factor: found {factor!r}, expected None, a number, "
        "NUM_REAL_TARGET_TOKENS, NUM_TOTAL_TARGET_TOKENS or AVERAGE_PER_SEQUENCE"
    )


def base_metrics(sums: ExampleSums, targets: jax.Array) -> dict[str, MetricSum]:
    """T5X's metrics of a batch, by T5X's names, without its clocks."""
    one = jnp.float32(1)
    real, total = jnp.sum(targets > 0).astype(jnp.float32), jnp.float32(targets.size)
    z_loss, cross_entropy = jnp.sum(sums.z_loss), jnp.sum(sums.cross_entropy)
    loss = cross_entropy + z_loss
    return {
        "accuracy": MetricSum(jnp.sum(sums.correct), jnp.sum(sums.accuracy_weight)),
        "loss": MetricSum(loss, one),
        "loss_per_nonpadding_target_token": MetricSum(loss, real),
        "loss_per_all_target_tokens": MetricSum(loss, total),
        "z_loss": MetricSum(z_loss, one),
        "z_loss_per_all_target_tokens": MetricSum(z_loss, total),
        "cross_ent_loss": MetricSum(cross_entropy, one),
        "cross_ent_loss_per_all_target_tokens": MetricSum(cross_entropy, total),
        "non_padding_fraction/decoder_target_tokens": MetricSum(real, total),
    }
