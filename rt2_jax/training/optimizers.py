"""What the trainer needs of an optimizer, and AdamW under this convention."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import optax


@runtime_checkable
class Optimizer(Protocol):
    """What the trainer needs of an optimizer: `Adafactor` and `AdamW` are two."""

    def transformation(self, axes: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation for parameters with these logical axes.

        Its `update` takes the keywords `step` and `learning_rate`: a schedule belongs to the run,
        and the step is the train state's.
        """


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Attributes:
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: times the learning rate, the part of a parameter taken off at each step.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def transformation(self, axes: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation; the logical axes do not matter to it."""
        return optax.chain(
            optax.scale_by_adam(self.b1, self.b2, self.eps),
            optax.add_decayed_weights(self.weight_decay),
            optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), _descend),
        )


def _descend(
    updates: optax.Updates,
    state: optax.EmptyState,
    params: optax.Params | None = None,
    *,
    learning_rate: jax.Array,
    **_: Any,
) -> tuple[optax.Updates, optax.EmptyState]:
    return jax.tree.map(lambda update: -learning_rate * update, updates), state
