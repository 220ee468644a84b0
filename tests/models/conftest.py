"""Tiny models of both kinds, with every parameter random, and batches of uneven rows."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from rt2_jax.models.config import TextConfig, VisionConfig, VisionLanguageConfig
from rt2_jax.models.model import VisionLanguageModel
from rt2_jax.models.vision_language import VisionLanguageModule

VOCAB = 40
PATCHES = VisionLanguageConfig(
    vision=VisionConfig(
        image_size=(16, 8), patch_size=4, embed_dim=16, num_layers=2, num_heads=2, mlp_dim=24
    ),
    text=TextConfig(
        vocab_size=VOCAB,
        embed_dim=24,
        encoder_layers=2,
        decoder_layers=3,
        num_heads=4,
        head_dim=8,
        mlp_dim=32,
    ),
    image_slots=(("front", 0), ("wrist", 0)),
)
CONV = dataclasses.replace(
    PATCHES,
    vision=dataclasses.replace(PATCHES.vision, stem="conv"),
    text=dataclasses.replace(PATCHES.text, tie_embeddings=True, mlp_activations=("relu",)),
    image_slots=(("front", 0),),
)


def _make_batch(config, rows=3, seed=0):
    draw = np.random.default_rng(seed)
    slots = len(config.image_slots)
    inputs, targets = draw.integers(2, VOCAB, (rows, 6)), draw.integers(2, VOCAB, (rows, 5))
    for row in range(rows):
        inputs[row, 6 - row % 3 :] = 0
        targets[row, 5 - row % 4 :] = 0
    shifted = np.concatenate([np.zeros((rows, 1), int), targets[:, :-1]], axis=1)
    weights = (targets > 0) * draw.uniform(0.5, 2, targets.shape)
    images = draw.integers(0, 256, (rows, slots, *config.vision.image_size, 3))
    return {
        "images": jnp.asarray(images, jnp.uint8),
        "image_mask": jnp.ones((rows, slots), bool),
        "encoder_input_tokens": jnp.asarray(inputs, jnp.int32),
        "decoder_input_tokens": jnp.asarray(shifted, jnp.int32),
        "decoder_target_tokens": jnp.asarray(targets, jnp.int32),
        "decoder_loss_weights": jnp.asarray(weights, jnp.float32),
    }


def _make_params(config):
    """Random where a new model has ones and zeros, so that every parameter counts."""
    model, draw = VisionLanguageModel(config), np.random.default_rng(0)
    shapes = {name: leaf.shape for name, leaf in _make_batch(config).items()}
    variables = jax.eval_shape(
        lambda rng: model.get_initial_variables(rng, shapes), jax.random.key(0)
    )

    def fill(leaf):
        scale = 1.5 * leaf.shape[0] ** -0.5
        return jnp.asarray(draw.normal(scale=scale, size=leaf.shape), leaf.dtype)

    return jax.tree.map(fill, variables["params"])


INPUTS = ("images", "image_mask", "encoder_input_tokens", "decoder_input_tokens")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(module, method, params, *inputs):
    return module.apply({"params": params}, *inputs, method=method)


@functools.cache
def _jit(model, name):
    return jax.jit(getattr(model, name))


@pytest.fixture(scope="session")
def apply():
    """`apply(config, method, params, *inputs)`: a method of the module, compiled once."""
    return lambda config, *rest: _apply(VisionLanguageModule(config), *rest)


@pytest.fixture(scope="session")
def logits(apply):
    """`logits(config, params, batch)` of all targets at once."""
    return lambda config, params, batch: apply(
        config, "__call__", params, *(batch.get(name) for name in INPUTS)
    )


@pytest.fixture(scope="session")
def jit():
    """`jit(model, name)`: a method of the model, compiled once."""
    return _jit


def _in_nnx(module, params, *inputs):
    """The logits of the module wrapped for Flax's other way of writing modules."""

    def wrap():
        return nnx.bridge.lazy_init(nnx.bridge.ToNNX(module, rngs=nnx.Rngs(0)), *inputs)

    with nnx.use_eager_sharding(False):
        wrapped = nnx.eval_shape(wrap)
    graph, state, rest = nnx.split(wrapped, nnx.Param, ...)
    shapes = jax.tree.map(jnp.shape, nnx.to_pure_dict(state))
    assert shapes == jax.tree.map(jnp.shape, params)
    nnx.replace_by_pure_dict(state, params)
    # Nothing is drawn, but the wrapper wants its generator to be real.
    rest = jax.tree.map(
        lambda leaf: jax.random.key(0) if leaf.dtype != jnp.uint32 else jnp.uint32(0), rest
    )
    return jax.jit(lambda *states: nnx.merge(graph, *states)(*inputs))(state, rest)


@pytest.fixture(scope="session")
def in_nnx():
    """`in_nnx(module, params, *inputs)`: what the module gives when NNX wraps it."""
    return _in_nnx


@pytest.fixture(scope="session")
def make_batch():
    """`make_batch(config, rows=3, seed=0)`: rows of uneven length, uneven weights, all slots."""
    return _make_batch


@pytest.fixture(scope="session")
def patches():
    """Patch stem, two image slots, untied output."""
    return PATCHES


@pytest.fixture(scope="session", params=[PATCHES, CONV], ids=["patches", "conv"])
def config(request):
    return request.param


@pytest.fixture(scope="session")
def params(config):
    return _make_params(config)


@pytest.fixture(scope="session")
def patches_params(patches):
    return _make_params(patches)


@pytest.fixture(scope="session")
def model(config):
    return VisionLanguageModel(config)


@pytest.fixture(scope="session")
def batch(config):
    return _make_batch(config)


# Softmax and losses; norms; sums over features, keys, tokens.
_EXACT = {"exp", "exp2", "log", "log1p", "rsqrt", "sqrt", "reduce_sum", "reduce_max", "cumsum"}


def _operations(jaxpr):
    """Every operation of a program, those inside of loops and calls too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _operations(inner)


def _rounded(function, *arguments):
    """Names of the operations that must be exact and are computed in bfloat16."""
    found, seen = set(), set()
    for equation in _operations(jax.make_jaxpr(function)(*arguments).jaxpr):
        name = equation.primitive.name
        seen.add(name)
        if name in _EXACT and any(x.aval.dtype == jnp.bfloat16 for x in equation.invars):
            found.add(name)
    assert {"exp", "rsqrt", "reduce_sum", "dot_general"} <= seen
    return found


@pytest.fixture(scope="session")
def rounded():
    """`rounded(function, *arguments)`: what must be exact and is computed in bfloat16."""
    return _rounded
