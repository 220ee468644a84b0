"""What the backward pass keeps of cheap functions: what goes in, or what comes out, and no more.

`jax.grad` keeps whatever each operation between them needs, which of an activation is five arrays
as large as the widest of a layer, and of a softmax four as large as all attention weights.
Writing and reading them takes longer than computing them again, and under a scan they stand in
memory for all layers at once.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

MASKED = -1e10  # as T5X's: far below any logit, and finite, so that a row of them has no NaN


def recomputed(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The same function of arrays, computed again in the backward pass from its arguments."""
    return jax.checkpoint(function, prevent_cse=False)


@jax.custom_vjp
def masked_softmax(logits: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The softmax over the last axis, float32, of which the gradient needs the result alone.

    Args:
      logits: float32 [..., K].
      mask: bool, broadcast to it; False gets a weight of 0, unless a row has nothing else: then all
        are equal. None for no mask.
    """
    return _forward(logits, mask)[0]


def _forward(logits: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, tuple]:
    if mask is not None:
        logits = jnp.where(mask, logits, MASKED)
    weights = jax.nn.softmax(logits)
    return weights, (weights, mask)


def _backward(saved: tuple, gradient: jax.Array) -> tuple[jax.Array, None]:
    weights, mask = saved
    weighted = weights * gradient
    of_logits = weighted - weights * jnp.sum(weighted, axis=-1, keepdims=True)
    if mask is not None:  # in a row that has nothing else, weights behind the mask are not 0
        of_logits = jnp.where(mask, of_logits, 0.0)
    return of_logits, None


masked_softmax.defvjp(_forward, _backward)
