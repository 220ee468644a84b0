"""The published size, part by part; what a configuration refuses."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest

from rt2_jax.models.rt1.config import RT1_35M, EfficientNetConfig, RT1Config, rt1_tiny
from rt2_jax.models.rt1.module import RT1Module

B3 = RT1_35M.vision


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@functools.cache
def shapes(config):
    """Of all parameters, made of nothing."""
    slots = len(config.image_slots)
    images = jax.ShapeDtypeStruct((1, slots, *config.image_size, 3), jnp.uint8)
    mask = jax.ShapeDtypeStruct((1, slots), jnp.bool_)
    instruction = {
        "embedding": jax.ShapeDtypeStruct((1, config.instruction_dim), jnp.float32),
        "tokens": jax.ShapeDtypeStruct((1, 4), jnp.int32),
    }[config.instruction]
    init = functools.partial(RT1Module(config).init, num_action_tokens=config.action_tokens)
    return jax.eval_shape(init, jax.random.key(0), images, mask, instruction)["params"]


def test_the_full_size_has_the_published_parameters():
    # Brohan et al. 2022, section 5.1: 16M and 19M, 35M in all.
    params = shapes(RT1_35M)
    assert round(count(params) / 1e6) == 35
    assert round(count(params["image_tokenizer"]) / 1e6) == 16
    assert round(count(params["transformer"]) / 1e6) == 19


def test_the_full_size_has_the_parameters_of_the_published_code():
    params = shapes(RT1_35M)
    pictures = params["image_tokenizer"]
    films = {name: part for name, part in pictures["efficientnet"].items() if "film" in name}
    assert len(films) == len(B3.blocks) == 26
    # EfficientNet-B3 of Keras without its top, but for its seven numbers of normalization.
    assert count(pictures["efficientnet"]) - count(films) == 10_783_535 - 7
    assert count(films) == 2 * 513 * sum(block.channels_out for block in B3.blocks)
    assert count(pictures["projection"]) == 1536 * 512
    assert count(pictures["film"]) == 2 * 513 * 512
    assert count(pictures["token_learner"]) == 2 * 512 + 513 * 64 + 65 * 8
    layer = 2 * 2 * 512 + 3 * 513 * 1024 + 1025 * 512 + 513 * 512
    ends = 513 * 512 + 513 * 256
    # The code has 114 positions and a bias of theirs: 6 actions of 11 tokens, of which one is read.
    assert count(params["transformer"]) == 8 * layer + ends + 58 * 512
    code = 15_831_456 + 8 * layer + ends + 115 * 512
    assert abs(count(params) / code - 1) < 1e-3


def test_the_published_padding_gives_81_places_and_tensorflows_100():
    assert B3.grid == (9, 9)
    assert dataclasses.replace(B3, padding="same").grid == (10, 10)


def test_b3_has_the_published_channels():
    widths = {(block.channels_out, block.kernel) for block in B3.blocks}
    assert widths == {(24, 3), (32, 3), (48, 5), (96, 3), (136, 5), (232, 5), (384, 3)}
    assert (B3.stem_channels, B3.top_channels) == (40, 1536)


@pytest.mark.parametrize("vocab_size", [0, 8000])
def test_the_tiny_one_has_less_than_a_million_parameters(vocab_size):
    config = rt1_tiny(vocab_size, num_frames=3)
    assert config.image_slots == (("front", -2), ("front", -1), ("front", 0))
    assert 2e5 < count(shapes(config)) < 1e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, r"EfficientNetConfig\.width: found 0, expected more than 0"),
        ({"num_stages": 8}, r"num_stages: found 8, expected 1 to 7"),
        ({"norm": "batch"}, "norm: found 'batch', expected one of frozen_batch, group"),
        ({"padding": "valid"}, "padding: found 'valid'"),
        ({"image_size": (300,)}, r"image_size: found \(300,\), expected \(height, width\)"),
        ({"image_size": (31, 300)}, r"image_size: .* at least 32 pixels"),
        ({"drop_connect_rate": 1.0}, r"drop_connect_rate: found 1\.0, expected 0 to below 1"),
    ],
)
def test_a_picture_encoder_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(B3, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 0}, r"RT1Config\.num_layers: found 0, expected a positive integer"),
        ({"instruction": "text"}, "instruction: found 'text', expected one of embedding, tokens"),
        ({"instruction": "tokens"}, "vocab_size: found 0, expected the vocabulary's size"),
        ({"vocab_size": 9}, "vocab_size: found 9, expected 0 with the instruction 'embedding'"),
        (
            {"instruction": "tokens", "vocab_size": 9, "instruction_heads": 7},
            "instruction_dim: found 512, expected a multiple of instruction_heads 7",
        ),
        ({"image_slots": ()}, r"image_slots: found \(\), expected at least one"),
        ({"image_slots": (("a", 0), ("a", -1))}, "image_slots: .* expected the oldest first"),
        ({"dtype": "float16"}, "dtype: found 'float16'"),
        ({"feed_forward": "gelu"}, "feed_forward: found 'gelu', expected one of linear, swiglu"),
        ({"dropout_rate": -0.1}, "dropout_rate: found -0.1"),
    ],
)
def test_a_model_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        RT1Config(**{"vision": EfficientNetConfig((64, 64)), **change})
