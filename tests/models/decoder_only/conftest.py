"""Tiny decoder-only models of every kind, every parameter random, and rows of uneven length."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.config import DecoderOnlyConfig
from rt2_jax.models.decoder_only import DecoderOnly

PALM = DecoderOnlyConfig(
    vocab_size=30,
    embed_dim=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=1,
    head_dim=8,
    mlp_dim=24,
    parallel_block=True,
    norm_scale_plus_one=True,
    embedding_scale="logits",
)
GEMMA = dataclasses.replace(
    PALM,
    num_layers=3,
    mlp_activations=("gelu", "linear"),
    parallel_block=False,
    embedding_scale="inputs",
)
LLAMA = dataclasses.replace(
    PALM,
    num_kv_heads=2,
    parallel_block=False,
    norm_scale_plus_one=False,
    norm_epsilon=1e-5,
    embedding_scale="none",
    tie_embeddings=False,
    rope_max_wavelength=500.0,
)
FULL = dataclasses.replace(GEMMA, num_kv_heads=4, num_layers=2)
CONFIGS = {"palm": PALM, "gemma": GEMMA, "llama": LLAMA, "full": FULL}


@pytest.fixture(scope="session")
def configs():
    """`palm` and `gemma` (one head of keys), `llama` (two) and `full` (four), by name."""
    return CONFIGS


@functools.cache
def _make_params(config):
    draw = np.random.default_rng(0)
    tokens = jnp.zeros((1, 2), jnp.int32)
    boxed = jax.eval_shape(DecoderOnly(config).init, jax.random.key(0), tokens)["params"]

    def fill(box):
        shape = box.value.shape
        width = shape[1] if box.names == ("vocab", "embed") else shape[0]
        return jnp.asarray(draw.normal(scale=width**-0.5, size=shape), jnp.float32)

    return jax.tree.map(fill, boxed, is_leaf=lambda x: hasattr(x, "names"))


@pytest.fixture(scope="session")
def make_params():
    """`make_params(config)`: random where a new model has ones and zeros."""
    return _make_params


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(module, method, params, *inputs):
    return module.apply({"params": params}, *inputs, method=method)


@pytest.fixture(scope="session")
def apply():
    """`apply(config, method, params, *inputs)`: a method of the module, compiled once."""
    return lambda config, *rest: _apply(DecoderOnly(config), *rest)


@pytest.fixture(scope="session")
def rows():
    """Three rows: tokens [3, 8], of which 5 are the prefix, prefix and mask; padding in places.

    The prefixes have 5, 3 and 2 tokens, the last one after its padding; 3 tokens follow.
    """
    tokens = np.random.default_rng(1).integers(2, 30, (3, 8))
    mask = np.ones((3, 8), bool)
    mask[1, 3:5] = mask[2, :3] = False
    prefix = mask.astype(np.int32)
    prefix[:, 5:] = 0
    return jnp.asarray(tokens, jnp.int32), jnp.asarray(prefix), jnp.asarray(mask)
