"""A tiny RT-1 of each kind, with every parameter random, and inputs with a short history."""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.rt1.config import EfficientNetConfig, RT1Config
from rt2_jax.models.rt1.module import RT1Module

VISION = EfficientNetConfig(
    image_size=(20, 12), width=0.25, depth=0.5, num_stages=2, norm="frozen_batch"
)
STORED = RT1Config(
    vision=VISION,
    image_slots=(("front", -2), ("front", -1), ("front", 0)),
    instruction_dim=16,
    tokens_per_image=2,
    token_learner_dim=8,
    embed_dim=16,
    num_layers=2,
    num_heads=2,
    head_dim=4,
    action_tokens=5,
    num_bins=11,
)
LEARNED = RT1Config(
    vision=dataclasses.replace(VISION, num_stages=1, norm="group", padding="even"),
    image_slots=(("front", -1), ("wrist", -1), ("front", 0), ("wrist", 0)),
    instruction="tokens",
    vocab_size=20,
    instruction_dim=16,
    instruction_heads=2,
    instruction_mlp_dim=24,
    tokens_per_image=2,
    token_learner_dim=8,
    embed_dim=16,
    num_layers=2,
    num_heads=2,
    head_dim=4,
    feed_forward="swiglu",
    mlp_dim=24,
    action_tokens=5,
    num_bins=11,
    scan_layers=False,
)


def _make_inputs(config, rows=2, seed=0):
    draw = np.random.default_rng(seed)
    slots = len(config.image_slots)
    images = draw.integers(0, 256, (rows, slots, *config.image_size, 3))
    if config.instruction == "tokens":
        words = draw.integers(1, config.vocab_size, (rows, 5))
        words[0, 3:] = 0
        instruction = jnp.asarray(words, jnp.int32)
    else:
        drawn = draw.normal(size=(rows, config.instruction_dim))
        instruction = jnp.asarray(drawn, jnp.float32)
    return jnp.asarray(images, jnp.uint8), jnp.ones((rows, slots), bool), instruction


def _fill(shapes):
    """Random values for parameters of these shapes, by their names."""

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        random = np.random.default_rng(zlib.crc32(name.encode()))
        values = random.normal(scale=1.5 * leaf.shape[0] ** -0.5, size=leaf.shape)
        if name.endswith(("/scale", "/var")):
            values = 0.5 + np.abs(values)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def _boxed(config):
    init = functools.partial(RT1Module(config).init, num_action_tokens=1)
    return jax.eval_shape(init, jax.random.key(0), *_make_inputs(config))["params"]


@functools.cache
def _make_params(config):
    shapes = jax.tree.map(lambda box: box.value, _boxed(config), is_leaf=_is_box)
    return _fill(shapes)


def _is_box(leaf):
    return hasattr(leaf, "names")


@functools.partial(jax.jit, static_argnums=(0, 5))
def _logits(config, params, images, mask, instruction, count):
    return RT1Module(config).apply({"params": params}, images, mask, instruction, count)


@pytest.fixture(scope="session")
def logits():
    """`logits(config, params, *inputs, num_action_tokens)`, compiled once."""
    return _logits


@pytest.fixture(scope="session")
def stored():
    """Stored instructions, frozen batch norm, three steps of one view."""
    return STORED


@pytest.fixture(scope="session", params=[STORED, LEARNED], ids=["stored", "learned"])
def config(request):
    return request.param


@pytest.fixture(scope="session")
def learned():
    """Instructions as tokens, group norm, two views, layers written out."""
    return LEARNED


@pytest.fixture(scope="session")
def fill():
    """`fill(shapes)`: random parameters, positive where they must be."""
    return _fill


@pytest.fixture(scope="session")
def make_params():
    """`make_params(config)`: all random, so that every parameter counts."""
    return _make_params


@pytest.fixture(scope="session")
def boxed():
    """`boxed(config)`: the shapes of the parameters, with their logical axes."""
    return _boxed


@pytest.fixture(scope="session")
def make_inputs():
    """`make_inputs(config, rows=2, seed=0)`: images, image_mask, instruction."""
    return _make_inputs
