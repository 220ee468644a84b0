"""A vision transformer without a head: every patch of a picture becomes a token."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rt2_jax.models.config import VisionConfig
from rt2_jax.models.layer_stack import apply_layers
from rt2_jax.models.layers import FIXED_AXIS, Dense, EncoderLayer, LayerNorm, partitioned
from rt2_jax.models.position import sine_positions
from rt2_jax.models.sharding import constrain_residual, enter_block


class VisionTransformer(nn.Module):
    """ViT (Dosovitskiy et al. 2021), pre-norm, learned positions, no class token and no pooling.

    `VisionConfig` says what ViT-22B (Dehghani et al. 2023) has of its own.

    The positions begin as sines and cosines of row and column: begun as small noise, they take
    many thousand examples to mean anything, and nothing is grounded before.
    """

    config: VisionConfig
    dtype: Any
    scan_layers: bool
    remat: str = "none"
    attention: str = "xla"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """uint8 [P, H, W, 3] -> `dtype` [P, tokens, E], row by row."""
        config = self.config
        x = images.astype(self.dtype) / 127.5 - 1.0
        if config.stem == "conv":
            x = ConvStem(config, self.dtype, name="stem")(x)
        else:
            x = Dense(config.embed_dim, (FIXED_AXIS, "embed"), self.dtype, True, name="embedding")(
                _patches(x, config.patch_size)
            )
        positions = self.param(
            "pos_embedding",
            partitioned(
                lambda *_: jnp.asarray(sine_positions(config.grid, config.embed_dim)),
                (FIXED_AXIS, "embed"),
            ),
        )
        norm = functools.partial(
            LayerNorm, use_bias=config.norm_bias, centering=config.norm_centering
        )
        layers = apply_layers(
            EncoderLayer,
            {
                "num_heads": config.num_heads,
                "head_dim": config.embed_dim // config.num_heads,
                "mlp_dim": config.mlp_dim,
                "mlp_activations": ("gelu",),
                "dtype": self.dtype,
                "norm": norm,
                "scaled": True,
                "use_bias": True,
                "qkv_bias": config.qkv_bias,
                "qk_norm": functools.partial(norm, self.dtype) if config.qk_norm else None,
                "parallel_block": config.parallel_block,
                "attention_implementation": self.attention,
            },
            config.num_layers,
            self.scan_layers,
            self.remat,
        )
        x = constrain_residual(x + positions.astype(self.dtype))
        x, _ = layers(x, None, None, None, True)
        return enter_block(norm(self.dtype, name="norm")(x))


class ConvStem(nn.Module):
    """3x3 convolutions of stride 2, with norms and GELUs, then a linear map (Xiao et al. 2021).

    The width doubles with every convolution and ends at the transformer's.
    """

    config: VisionConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[P, H, W, 3] -> [P, tokens, E]."""
        depth = self.config.patch_size.bit_length() - 1
        for i in range(depth):
            width = max(self.config.embed_dim >> (depth - 1 - i), 16)
            channels = x.shape[-1]
            kernel = self.param(
                f"kernel_{i}",
                partitioned(
                    nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal"),
                    (FIXED_AXIS, "embed"),
                ),
                (9 * channels, width),
            )
            x = jax.lax.conv_general_dilated(
                x,
                kernel.astype(self.dtype).reshape(3, 3, channels, width),
                window_strides=(2, 2),
                padding=((1, 1), (1, 1)),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = nn.gelu(LayerNorm(self.dtype, name=f"norm_{i}")(x))
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        return Dense(self.config.embed_dim, ("mlp", "embed"), self.dtype, True, name="out")(x)


def _patches(x: jax.Array, side: int) -> jax.Array:
    """[P, H, W, 3] -> [P, tokens, side * side * 3]."""
    count, height, width, channels = x.shape
    x = x.reshape(count, height // side, side, width // side, side, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(count, -1, side * side * channels)
