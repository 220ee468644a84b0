"""Learning rates over steps: T5X's product of factors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class LearningRate:
    """T5X's `create_learning_rate_scheduler` (`t5x/utils.py`), field by field.

    Attributes:
      factors: names from `FACTORS`, joined by `*`.
      base_learning_rate: what `constant` is.
      warmup_steps: of the warm-up and of the decays that follow it.
      decay_factor: of `decay_every`, and the slope per step of `linear_decay`.
      steps_per_decay: of `decay_every`.
      steps_per_cycle: of `cosine_decay`.
      step_offset: subtracted from the step; for fine-tuning.
      min_learning_rate: the least that comes out.

    Raises:
      ValueError: an unknown factor, a negative rate, or a period or warm-up that is not positive.
    """

    factors: str = "constant * linear_warmup * rsqrt_decay"
    base_learning_rate: float = 0.5
    warmup_steps: int = 1000
    decay_factor: float = 0.5
    steps_per_decay: int = 20_000
    steps_per_cycle: int = 100_000
    step_offset: int = 0
    min_learning_rate: float = 1e-8

    def __post_init__(self) -> None:
        unknown = [name for name in self._names() if name not in FACTORS]
        if unknown:
            raise ValueError(
                f"LearningRate.factors: found {unknown} in {self.factors!r}, expected some of "
                f"{', '.join(FACTORS)}, joined by *"
            )
        if not 0 <= self.base_learning_rate < math.inf:
            raise ValueError(
                f"LearningRate.base_learning_rate: found {self.base_learning_rate}, "
                "expected 0 or more"
            )
        for name in ("warmup_steps", "steps_per_decay", "steps_per_cycle"):
            if getattr(self, name) <= 0:
                raise ValueError(
                    f"LearningRate.{name}: found {getattr(self, name)}, expected a positive number"
                )

    def __call__(self, step: jax.Array | int) -> jax.Array:
        """The learning rate of a step (from 0), float32 []."""
        step = jnp.maximum(0, jnp.asarray(step) - self.step_offset)
        rate = jnp.float32(1)
        for name in self._names():
            rate *= FACTORS[name](self, step)
        return jnp.maximum(rate, self.min_learning_rate).astype(jnp.float32)

    def _names(self) -> list[str]:
        return [name.strip() for name in self.factors.split("*")]


def _linear_decay(rate: LearningRate, step: jax.Array) -> jax.Array:
    """T5X's: it has the base learning rate in itself, as `constant` has."""
    fall = 1.0 + rate.decay_factor * (rate.warmup_steps - step)
    return rate.base_learning_rate * jnp.minimum(step / rate.warmup_steps, fall)


def _cosine_decay(rate: LearningRate, step: jax.Array) -> jax.Array:
    progress = jnp.maximum(0.0, (step - rate.warmup_steps) / rate.steps_per_cycle)
    return 0.5 * (1.0 + jnp.cos(jnp.pi * (progress % 1.0)))


FACTORS: Mapping[str, Callable[[LearningRate, jax.Array], Any]] = {
    "constant": lambda rate, step: rate.base_learning_rate,
    "linear_warmup": lambda rate, step: jnp.minimum(1.0, step / rate.warmup_steps),
    "linear_decay": _linear_decay,
    "rsqrt_decay": lambda rate, step: jnp.maximum(step, rate.warmup_steps) ** -0.5,
    "rsqrt_normalized_decay": lambda rate, step: (
        math.sqrt(rate.warmup_steps) * jnp.maximum(step, rate.warmup_steps) ** -0.5
    ),
    "decay_every": lambda rate, step: rate.decay_factor ** (step // rate.steps_per_decay),
    "cosine_decay": _cosine_decay,
}
"""T5X's factors: (schedule, step after the offset) -> factor."""
