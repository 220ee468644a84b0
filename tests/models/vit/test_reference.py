"""Against plain numpy, written from the equations of the papers, one head and one place at a time.

ViT: Dosovitskiy et al. 2021, equations 1 to 4; ViT-22B: Dehghani et al. 2023, section 2, with the
norm of Zhang and Sennrich 2019; GELU: Hendrycks and Gimpel 2016, by tanh.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rt2_jax.models.layer_stack import unstack_layers
from rt2_jax.models.layers import Attention, LayerNorm
from rt2_jax.models.published_vision import VIT_22B


def norm(x, weights, config):
    """LN(x) of one vector."""
    if config.norm_centering:
        x = x - x.mean()
    x = x / np.sqrt((x**2).mean() + 1e-6) * weights["scale"]
    return x + weights["bias"] if config.norm_bias else x


def linear(x, weights, bias=True):
    x = x @ weights["kernel"]
    return x + weights["bias"] if bias else x


def attention(ys, weights, config):
    """softmax[ (1 / sqrt d) LN(Y Wq) (LN(Y Wk))^T ] Y Wv, head by head, and the output map."""
    size = config.embed_dim // config.num_heads
    queries, keys, values = (
        linear(ys, weights[name], config.qkv_bias) for name in ("query", "key", "value")
    )
    mixed = np.zeros_like(values)
    for head in range(config.num_heads):
        mine = slice(head * size, (head + 1) * size)
        for i in range(len(ys)):
            query, seen = queries[i, mine], keys[:, mine]
            if config.qk_norm:
                query = norm(query, weights["query_norm"], config)
                seen = np.stack([norm(key, weights["key_norm"], config) for key in seen])
            odds = np.exp(seen @ query / math.sqrt(size))
            mixed[i, mine] = odds @ values[:, mine] / odds.sum()
    return linear(mixed, weights["out"])


def mlp(ys, weights):
    x = linear(ys, weights["wi"])
    x = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return linear(x, weights["wo"])


def block(xs, weights, config):
    def normed(xs, name):
        return np.stack([norm(x, weights[name], config) for x in xs])

    if config.parallel_block:  # y' = LN(x), y = x + MLP(y') + Attention(y')
        ys = normed(xs, "layer_norm")
        return xs + mlp(ys, weights["mlp"]) + attention(ys, weights["attention"], config)
    xs = xs + attention(normed(xs, "pre_attention_layer_norm"), weights["attention"], config)
    return xs + mlp(normed(xs, "pre_mlp_layer_norm"), weights["mlp"])


def tower(picture, params, config):
    """uint8 [H, W, 3] -> [tokens, E]."""
    side, (rows, columns) = config.patch_size, config.grid
    pixels = picture / 127.5 - 1
    patches = [
        pixels[r * side : (r + 1) * side, c * side : (c + 1) * side].ravel()
        for r in range(rows)
        for c in range(columns)
    ]
    xs = linear(np.stack(patches), params["embedding"]) + params["pos_embedding"]
    for layer in range(config.num_layers):
        xs = block(xs, params[f"layers_{layer}"], config)
    return np.stack([norm(x, params["norm"], config) for x in xs])


def as_numpy(params, dtype):
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype), unstack_layers(params))


def test_tokens_are_those_of_the_papers_equations(config, make_images, make_params, tokens_of):
    images, plain = make_images(config), as_numpy(make_params(config), np.float64)
    for found, picture in zip(tokens_of(config, images), np.asarray(images), strict=True):
        expected = tower(picture, plain, config)
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    "change", [{"qk_norm": False}, {"norm_centering": True}, {"num_heads": 6}], ids=str
)
def test_tokens_are_not_those_of_other_equations(
    configs, make_images, make_params, tokens_of, change
):
    config = dataclasses.replace(configs["vit_22b"], qk_norm="num_heads" not in change)
    images, plain = make_images(config), as_numpy(make_params(config), np.float64)
    wrong = tower(np.asarray(images)[0], plain, dataclasses.replace(config, **change))
    assert np.abs(tokens_of(config, images)[0] - wrong).max() > 0.02 * np.abs(wrong).max()


def test_normed_queries_and_keys_are_those_of_flaxs_attention():
    width, heads, size = 24, 3, 8
    draw = np.random.default_rng(2)
    x = jnp.asarray(draw.normal(size=(2, 5, width)), jnp.float32)
    theirs = nn.MultiHeadDotProductAttention(num_heads=heads, normalize_qk=True)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), jnp.float32),
        jax.eval_shape(theirs.init, jax.random.key(0), x)["params"],
    )
    mine = {
        name: {
            "kernel": params[name]["kernel"].reshape(width, width),
            "bias": params[name]["bias"].reshape(width),
        }
        for name in ("query", "key", "value", "out")
    }
    mine |= {f"{name}_norm": params[f"{name}_ln"] for name in ("query", "key")}

    def make_norm(axis):
        return LayerNorm(jnp.float32, use_bias=False, axis=axis)

    ours = Attention(heads, size, jnp.float32, scaled=True, use_bias=True, qk_norm=make_norm)

    def attend(module, x):
        return module(x, *module.keys_and_values(x), None, None, True)

    found = nn.apply(attend, ours)({"params": mine}, x)
    expected = theirs.apply({"params": params}, x)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow  # 0.45 billion parameters
def test_a_layer_of_vit_22b_at_its_full_width_is_that_of_the_papers_equations(
    make_images, make_params, tokens_of, full_check
):
    if not full_check:
        pytest.skip("in the full form only: above is the same block at small width")
    config = dataclasses.replace(VIT_22B, num_layers=1, image_size=(28, 42))
    images = make_images(config)[:1]
    found = np.asarray(tokens_of(config, images)[0])
    # numpy widens one kernel at a time: its activations are float64.
    plain = as_numpy(make_params(config), np.float32)
    make_params.cache_clear()
    expected = tower(np.asarray(images)[0].astype(np.float64), plain, config)
    assert found.shape == (6, 6144)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
