"""A small sentence encoder, for data whose instructions have no stored vectors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rt2_jax.models.config import PADDING
from rt2_jax.models.layer_stack import apply_layers
from rt2_jax.models.layers import EncoderLayer, RMSNorm, TokenEmbedder
from rt2_jax.models.position import RelativePositionBias
from rt2_jax.models.rt1.config import RT1Config


class SentenceEncoder(nn.Module):
    """T5's encoder in small, and the mean over the tokens; it learns with the rest of the model."""

    config: RT1Config
    dtype: Any

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """int32 [B, L], 0 is padding -> `dtype` [B, instruction_dim]; zeros for no tokens."""
        config = self.config
        mask, places = tokens != PADDING, jnp.arange(tokens.shape[1])[None]
        bias, _ = RelativePositionBias(
            config.instruction_heads,
            num_buckets=32,
            max_distance=128,
            bidirectional=True,
            name="relpos_bias",
        )(places, places)
        layers = apply_layers(
            EncoderLayer,
            {
                "num_heads": config.instruction_heads,
                "head_dim": config.instruction_dim // config.instruction_heads,
                "mlp_dim": config.instruction_mlp_dim,
                "mlp_activations": ("gelu", "linear"),
                "dtype": self.dtype,
            },
            config.instruction_layers,
            config.scan_layers,
        )
        embedder = TokenEmbedder(
            config.vocab_size, config.instruction_dim, self.dtype, name="token_embedder"
        )
        x, _ = layers(embedder(tokens), None, mask[:, None, None, :], bias, True)
        x = RMSNorm(jnp.float32, name="norm")(x)
        total = jnp.sum(jnp.where(mask[..., None], x, 0.0), axis=1)
        return (total / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)).astype(self.dtype)
