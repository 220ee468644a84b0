"""Models of published size have the published number of parameters; nothing is allocated."""

import math

import jax
import jax.numpy as jnp
import pytest

from rt2_jax.models.config import VisionConfig
from rt2_jax.models.published_counts import PUBLISHED_COUNTS
from rt2_jax.models.published_vision import SIGLIP_SO400M_14, VIT_22B, VIT_B_16, VIT_E_14
from rt2_jax.models.vit import VisionTransformer

TOWERS = [
    name
    for name, published in PUBLISHED_COUNTS.items()
    if isinstance(published.config, VisionConfig) and name != "ViT-B/16"
]


def shapes(config):
    module = VisionTransformer(config, jnp.dtype("bfloat16"), scan_layers=True)
    example = jax.ShapeDtypeStruct((1, *config.image_size, 3), jnp.uint8)
    variables = jax.eval_shape(module.init, jax.random.key(0), example)
    return jax.tree_util.tree_leaves_with_path(variables["params"])


def count(config):
    return sum(math.prod(leaf.shape) for _, leaf in shapes(config))


@pytest.mark.parametrize("name", TOWERS)
def test_the_parameters_are_those_published_to_a_thousandth(name):
    published = PUBLISHED_COUNTS[name]
    found = count(published.config) + sum(published.elsewhere.values())
    assert found == pytest.approx(published.parameters, rel=1e-3)


def test_vit_b_has_the_parameters_published_to_their_two_digits():
    assert round(count(VIT_B_16) / 1e6) == PUBLISHED_COUNTS["ViT-B/16"].parameters / 1e6


def test_vit_e_has_the_published_parameters_only_with_its_head_and_classifier():
    published = PUBLISHED_COUNTS["ViT-e/14"]
    assert set(published.elsewhere) == {"MAP head", "JFT classifier"}
    assert count(VIT_E_14) == 3_805_417_728
    whole = count(VIT_E_14) + sum(published.elsewhere.values())
    assert round(whole / 1e6) == published.parameters / 1e6


def test_the_kernels_of_vit_22bs_layers_are_the_published_number():
    kernels = sum(
        math.prod(leaf.shape)
        for path, leaf in shapes(VIT_22B)
        if "['layers']" in jax.tree_util.keystr(path) and "kernel" in jax.tree_util.keystr(path)
    )
    assert kernels == 21_743_271_936
    assert round(kernels / 1e6) == PUBLISHED_COUNTS["ViT-22B"].parameters / 1e6
    assert VIT_22B.embed_dim // VIT_22B.num_heads == 128


def test_vit_22b_has_the_biases_that_are_published():
    biases = {
        jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/bias/value")
        for path, _ in shapes(VIT_22B)
        if "bias" in jax.tree_util.keystr(path)
    }
    layer = {f"layers/{name}" for name in ("attention/out", "mlp/wi", "mlp/wo")}
    assert biases == {"embedding"} | layer


def test_so400m_has_timms_parameters_with_and_without_the_head():
    head = PUBLISHED_COUNTS["SigLIP So400m/14"].elsewhere["MAP head"]
    assert round(count(SIGLIP_SO400M_14) / 1e6) == 412
    assert round((count(SIGLIP_SO400M_14) + head) / 1e6) == 428
