"""A running average of the parameters, which is often better than the last of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class EMA:
    """An exponential moving average (Polyak and Juditsky 1992) of the parameters that train.

    It is kept in the train state, in float32 as the parameters are, and saved as the item `ema` of
    a checkpoint. It does not change training.

    Attributes:
      decay: what a step leaves of the average before it; it is over some 1 / (1 - decay) steps.
      start_step: up to this step the average is the parameters themselves.

    Raises:
      ValueError: the decay is not in 0 to below 1, or the step is negative.
    """

    decay: float = 0.999
    start_step: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"EMA.decay: found {self.decay}, expected 0 to below 1")
        if self.start_step < 0:
            raise ValueError(f"EMA.start_step: found {self.start_step}, expected 0 or more")

    def update(self, average: Any, params: Any, step: jax.Array) -> Any:
        """The average after a step.

        Args:
          average: the tree before it.
          params: the parameters after it.
          step: its number, from 0.
        """
        kept = jnp.where(step < self.start_step, 0.0, self.decay)
        return jax.tree.map(
            lambda old, new: (kept * old + (1 - kept) * new).astype(old.dtype), average, params
        )
