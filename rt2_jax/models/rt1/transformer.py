"""RT-1's transformer: the tokens of some pictures in, all tokens of one action out at once."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rt2_jax.models.layer_stack import apply_layers
from rt2_jax.models.layers import (
    FIXED_AXIS,
    Attention,
    Dense,
    LayerNorm,
    Mlp,
    dropout,
    partitioned,
)
from rt2_jax.models.rt1.config import RT1Config
from rt2_jax.models.sharding import constrain_residual, enter_block


class ActionTransformer(nn.Module):
    """A causal transformer over the picture tokens, with places behind them for the action.

    RT-1's code (`transformer_network.py`) is made for predicting one token after another, but hides
    every action token, itself included, from all others, and puts zeros in their places. So the
    token at each place depends on the pictures and on the place alone, and action token `i` is read
    where its predecessor stands, token 0 where the last picture token stands. Here the same is
    computed without what has no effect: action tokens are queries only, never keys, and earlier
    steps have none.
    """

    config: RT1Config
    dtype: Any

    @nn.compact
    def __call__(
        self, tokens: jax.Array, mask: jax.Array, num_action_tokens: int, deterministic: bool
    ) -> jax.Array:
        """[B, S, E] with mask bool [B, S] -> logits float32 [B, num_action_tokens, num_bins]."""
        config, seen = self.config, tokens.shape[1]
        # Token 0 is read where a picture token stands, which may be one that is not there.
        tokens = jnp.where(mask[..., None], tokens, 0)
        x = jnp.pad(tokens, ((0, 0), (0, num_action_tokens - 1), (0, 0)))
        x = Dense(config.embed_dim, ("mlp", "embed"), self.dtype, True, name="embedding")(x)
        positions = self.param(
            "pos_embedding",
            partitioned(
                nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
                (FIXED_AXIS, "embed"),
            ),
            (config.num_image_tokens + config.action_tokens - 1, config.embed_dim),
        )
        x = constrain_residual(x + positions[: x.shape[1]].astype(self.dtype))
        may_see = jnp.arange(seen)[None] <= jnp.arange(x.shape[1])[:, None]
        layers = apply_layers(
            ActionLayer,
            {"config": config, "dtype": self.dtype},
            config.num_layers,
            config.scan_layers,
        )
        x, _ = layers(x, None, may_see & mask[:, None, None], deterministic)
        # Losses and tokens hang on differences that bfloat16 would round away.
        output = Dense(config.num_bins, ("embed", "vocab"), jnp.float32, True, name="logits_dense")
        return output(enter_block(x)[:, seen - 1 :])


class ActionLayer(nn.Module):
    """Attention to the picture tokens and a feed-forward part, each behind a norm."""

    config: RT1Config
    dtype: Any

    @nn.compact
    def __call__(
        self, x: jax.Array, mine: None, mask: jax.Array, deterministic: bool
    ) -> tuple[jax.Array, None]:
        """[B, Q, E] -> [B, Q, E]; `mask` bool [B, 1, Q, S], the first S of Q are keys."""
        config, drop = self.config, dropout(self.config.dropout_rate)
        attention = Attention(
            num_heads=config.num_heads,
            head_dim=config.head_dim,
            dtype=self.dtype,
            scaled=True,
            use_bias=True,
            dropout_rate=config.dropout_rate,
            name="attention",
        )
        normed = enter_block(LayerNorm(self.dtype, name="pre_attention_layer_norm")(x))
        keys, values = attention.keys_and_values(normed[:, : mask.shape[-1]])
        x = constrain_residual(x + attention(normed, keys, values, mask, None, deterministic))
        normed = enter_block(LayerNorm(self.dtype, name="pre_mlp_layer_norm")(x))
        if config.feed_forward == "linear":
            axes = ("mlp", "embed")
            moved = Dense(config.embed_dim, axes, self.dtype, True, name="feed_forward")(normed)
        else:
            mlp = Mlp(config.mlp_dim, ("silu", "linear"), self.dtype, name="mlp")
            moved = mlp(normed, deterministic)
        return constrain_residual(x + drop(moved, deterministic)), None
