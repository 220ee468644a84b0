"""PaLM-E and PaliGemma in tiny, every parameter random, and rows as the pipeline makes them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.config import (
    PLACEHOLDER,
    DecoderOnlyConfig,
    DecoderVisionLanguageConfig,
    VisionConfig,
)
from rt2_jax.models.decoder_model import DecoderVisionLanguageModel

VOCAB = 30
VISION = VisionConfig(
    image_size=(8, 8), patch_size=4, embed_dim=16, num_layers=1, num_heads=2, mlp_dim=16
)
SHAPE = {
    "vocab_size": VOCAB,
    "embed_dim": 16,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 1,
    "head_dim": 8,
    "mlp_dim": 24,
    "norm_scale_plus_one": True,
}
PALM_E = DecoderVisionLanguageConfig(
    VISION,
    DecoderOnlyConfig(**SHAPE, parallel_block=True, embedding_scale="logits"),
    image_slots=(("front", 0), ("wrist", 0)),
    prefix_attention="causal",
)
PALIGEMMA = DecoderVisionLanguageConfig(
    VISION,
    DecoderOnlyConfig(**SHAPE, mlp_activations=("gelu", "linear"), embedding_scale="inputs"),
    image_slots=(("front", 0), ("wrist", 0)),
)
CONFIGS = {"palm_e": PALM_E, "paligemma": PALIGEMMA}
PROMPT, ANSWER = 6, 5


def _make_batch(config, rows=3, seed=0, prompts=None, room=PROMPT):
    """Rows of uneven prompts, padded in front, with pictures among or before their words."""
    draw = np.random.default_rng(seed)
    slots, tokens = len(config.image_slots), config.vision.num_tokens
    prefix = slots * tokens + room
    inputs, targets = np.zeros((rows, prefix + 1), int), np.zeros((rows, ANSWER), int)
    for row in range(rows):
        words = draw.integers(2, VOCAB, prompts[row] if prompts else PROMPT - row % 3).tolist()
        first = row % 2  # words that stand before the pictures
        line = [*words[:first], *[PLACEHOLDER] * (slots * tokens), *words[first:]]
        inputs[row, prefix + 1 - len(line) :] = line
        length = ANSWER - row % 4
        targets[row, :length] = draw.integers(2, VOCAB, length)
    weights = (targets > 0) * draw.uniform(0.5, 2, targets.shape)
    whole = np.concatenate([inputs, targets[:, :-1]], axis=1)
    attention = np.concatenate([np.ones_like(inputs), np.zeros_like(targets[:, :-1])], axis=1)
    images = draw.integers(0, 256, (rows, slots, *config.vision.image_size, 3))
    return {
        "images": jnp.asarray(images, jnp.uint8),
        "image_mask": jnp.asarray(draw.random((rows, slots)) < 0.7),
        "decoder_input_tokens": jnp.asarray(whole, jnp.int32),
        "decoder_causal_attention": jnp.asarray(attention, jnp.int32),
        "decoder_target_tokens": jnp.asarray(
            np.concatenate([inputs[:, 1:], targets], axis=1), jnp.int32
        ),
        "decoder_loss_weights": jnp.asarray(
            np.concatenate([np.zeros((rows, prefix)), weights], axis=1), jnp.float32
        ),
    }


@functools.cache
def _model(config):
    return DecoderVisionLanguageModel(config)


@functools.cache
def _make_params(config):
    draw = np.random.default_rng(0)
    shapes = {name: leaf.shape for name, leaf in _make_batch(config).items()}
    variables = jax.eval_shape(
        lambda rng: _model(config).get_initial_variables(rng, shapes), jax.random.key(0)
    )
    return jax.tree.map(
        lambda leaf: jnp.asarray(
            draw.normal(scale=1.5 * leaf.shape[0] ** -0.5, size=leaf.shape), leaf.dtype
        ),
        variables["params"],
    )


@functools.cache
def _jit(config, name):
    return jax.jit(
        getattr(_model(config), name), static_argnames="length" if name == "generate" else ()
    )


@pytest.fixture(scope="session", params=sorted(CONFIGS))
def config(request):
    return CONFIGS[request.param]


@pytest.fixture(scope="session")
def params(config):
    return _make_params(config)


@pytest.fixture(scope="session")
def model(config):
    return _model(config)


@pytest.fixture(scope="session")
def make_batch():
    """`make_batch(config, rows=3, seed=0, prompts=None, room=6)`; `prompts` are their lengths."""
    return _make_batch


@pytest.fixture(scope="session")
def run(config, params):
    """`run(name, *arguments, **options)`: a method of the model, compiled once."""
    return lambda name, *args, **options: _jit(config, name)(params, *args, **options)
