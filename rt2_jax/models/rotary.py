"""Rotary positions (RoPE): queries and keys are turned by angles that grow with their positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Rotation = tuple[jax.Array, jax.Array]
"""Cosines and sines, float32 [B, L, head_dim / 2] each."""


def rotation_of(positions: jax.Array, head_dim: int, max_wavelength: float) -> Rotation:
    """The angles of all positions (Su et al. 2021, section 3.2.2).

    Pair i turns by `position / max_wavelength ** (2 i / head_dim)`. In float32 in any case: in
    bfloat16 position 257 would be 256.

    Args:
      positions: int32 [B, L].
      head_dim: features of a head, an even number.
      max_wavelength: 10,000 in PaLM and Gemma, 500,000 in Llama 3.
    """
    exponents = jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim
    angles = positions[..., None].astype(jnp.float32) / max_wavelength**exponents
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, rotation: Rotation) -> jax.Array:
    """Turns the pairs of features of every head, [B, L, heads, head_dim]; in the dtype of `x`.

    Feature i goes with feature `i + head_dim / 2`, as in the published code of PaLM
    (google-research, `scaling_transformer_inference_efficiency`, `_rope`), Gemma (big_vision,
    `models/ppp/gemma.py`, `_apply_rope`) and Llama in its Hugging Face form. The paper and Llama's
    own files pair neighbours, 2 i and 2 i + 1: such weights are permuted when they are imported.
    """
    cos, sin = (wave[:, :, None] for wave in rotation)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
