"""TokenLearner: a few tokens instead of all places of a picture."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rt2_jax.models.layers import FIXED_AXIS, Dense, LayerNorm


class TokenLearner(nn.Module):
    """Weighted means of a picture's tokens, by weights that an MLP gives to every place.

    Ryoo et al. 2021; its version 1.1 (softmax over places instead of a sigmoid), as in RT-1. It
    knows no positions, so that any number of places can come in.
    """

    num_tokens: int
    hidden: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[P, places, E] -> [P, num_tokens, E]; the softmax is float32."""
        # Sixty-four and eight features: nothing is gained by dividing them among devices.
        axes = (FIXED_AXIS, "kv")
        weights = LayerNorm(self.dtype, name="norm")(x)
        weights = nn.gelu(Dense(self.hidden, axes, self.dtype, True, name="wi")(weights))
        weights = Dense(self.num_tokens, axes, self.dtype, True, name="wo")(weights)
        weights = nn.softmax(weights.astype(jnp.float32), axis=1).astype(self.dtype)
        return jnp.einsum("bpn,bpe->bne", weights, x)
