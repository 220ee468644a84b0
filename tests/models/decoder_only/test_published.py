"""Models of published size have the published number of parameters; nothing is allocated."""

import math

import jax
import jax.numpy as jnp
import pytest

from rt2_jax.models.config import DecoderOnlyConfig
from rt2_jax.models.decoder_only import DecoderOnly
from rt2_jax.models.published import GEMMA_2B, PALM_8B

# Llama 3 8B, from its `params.json`: grouped queries and an output layer of its own.
LLAMA_3_8B = DecoderOnlyConfig(
    vocab_size=128_256,
    embed_dim=4096,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    mlp_dim=14_336,
    norm_epsilon=1e-5,
    tie_embeddings=False,
    rope_max_wavelength=500_000.0,
)


def count(config):
    tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    variables = jax.eval_shape(DecoderOnly(config).init, jax.random.key(0), tokens)
    return {
        part: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        for part, tree in variables["params"].items()
    }


def test_gemma_2b_has_the_parameters_of_its_papers_table_2():
    assert count(GEMMA_2B) == {"token_embedder": 524_550_144, "decoder": 1_981_884_416}


def test_palm_8b_has_8_63_billion_parameters():
    found = sum(count(PALM_8B).values())
    assert found == 8_632_012_800
    assert found == pytest.approx(8.63e9, rel=1e-3)


def test_a_model_of_llamas_shape_has_its_parameters():
    assert sum(count(LLAMA_3_8B).values()) == 8_030_261_248
