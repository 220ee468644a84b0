"""EfficientNet against plain numpy, written from the papers; FiLM; norms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.rt1.config import EfficientNetConfig
from rt2_jax.models.rt1.efficientnet import ChannelNorm, EfficientNet, Film

# An odd side on the way: there the two paddings part.
CONFIG = EfficientNetConfig(image_size=(20, 12), width=0.25, num_stages=3)
DRAW = np.random.default_rng(0)
IMAGES = jnp.asarray(DRAW.integers(0, 256, (2, 20, 12, 3)), jnp.uint8)
CONDITION = jnp.asarray(DRAW.normal(size=(2, 6)), jnp.float32)


def numpy_conv(x, kernel, stride, padding):
    """[P, H, W, C_in] by [k, k, C_in, C_out], by hand."""
    side = len(kernel)
    pads = []
    for size in x.shape[1:3]:
        total = max((-(-size // stride) - 1) * stride + side - size, 0)
        before, after = total // 2, total - total // 2
        if stride == 2 and padding == "even":
            before, after = side // 2 - 1, side // 2
        pads.append((before, after))
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(1, 2))
    return np.einsum("phwcij,ijco->phwo", windows[:, ::stride, ::stride], kernel)


def numpy_norm(x, params, norm):
    if norm == "frozen_batch":
        x = (x - params["mean"]) / np.sqrt(params["var"] + 1e-3)
    else:
        groups = x.reshape(*x.shape[:3], -1, 8)
        mean = groups.mean(axis=(1, 2, 4), keepdims=True)
        var = groups.var(axis=(1, 2, 4), keepdims=True)
        x = ((groups - mean) / np.sqrt(var + 1e-3)).reshape(x.shape)
    return x * params["scale"] + params["bias"]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swish(x):
    return x * sigmoid(x)


def numpy_block(x, params, block, config):
    """Tan and Le's MBConv: expansion, depthwise, squeeze and excitation, projection, residual."""
    y = x
    if block.expansion != 1:
        kernel = params["expand"]["kernel"][None, None]
        y = swish(numpy_norm(numpy_conv(y, kernel, 1, ""), params["expand"]["norm"], config.norm))
    flat = params["depthwise"]["kernel"]
    kernel = flat.reshape(block.kernel, block.kernel, -1)
    # Each channel by itself: a kernel that is diagonal in its channels.
    kernel = kernel[..., None] * np.eye(kernel.shape[-1])
    y = numpy_conv(y, kernel, block.stride, config.padding)
    y = swish(numpy_norm(y, params["depthwise"]["norm"], config.norm))
    pooled = y.mean(axis=(1, 2))
    pooled = swish(pooled @ params["squeeze"]["kernel"] + params["squeeze"]["bias"])
    assert pooled.shape[1] == block.channels_in // 4
    gates = sigmoid(pooled @ params["excite"]["kernel"] + params["excite"]["bias"])
    kernel = params["project"]["kernel"][None, None]
    y = numpy_conv(y * gates[:, None, None], kernel, 1, "")
    y = numpy_norm(y, params["project"]["norm"], config.norm)
    return x + y if block.stride == 1 and block.channels_in == block.channels_out else y


def numpy_network(images, condition, params, config):
    x = (images / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    kernel = params["stem"]["kernel"].reshape(3, 3, 3, -1)
    x = numpy_conv(x, kernel, 2, config.padding)
    x = swish(numpy_norm(x, params["stem"]["norm"], config.norm))
    for i, block in enumerate(config.blocks):
        x = numpy_block(x, params[f"block_{i}"], block, config)
        film = params[f"film_{i}"]
        gamma = condition @ film["scale"]["kernel"] + film["scale"]["bias"]
        beta = condition @ film["shift"]["kernel"] + film["shift"]["bias"]
        x = (1 + gamma[:, None, None]) * x + beta[:, None, None]
    x = numpy_conv(x, params["top"]["kernel"][None, None], 1, "")
    return swish(numpy_norm(x, params["top"]["norm"], config.norm))


def initial(config, condition=CONDITION):
    init = EfficientNet(config, jnp.float32).init
    boxed = jax.eval_shape(init, jax.random.key(0), IMAGES, condition)["params"]
    return jax.tree.map(lambda box: box.value, boxed, is_leaf=is_box)


def is_box(leaf):
    return hasattr(leaf, "names")


@functools.partial(jax.jit, static_argnums=0)
def features(config, params, images, condition):
    return EfficientNet(config, jnp.float32).apply({"params": params}, images, condition)


@pytest.mark.parametrize(
    ("norm", "padding", "grid"), [("frozen_batch", "even", (2, 1)), ("group", "same", (3, 2))]
)
def test_the_features_are_those_of_the_papers_equations(fill, norm, padding, grid):
    config = dataclasses.replace(CONFIG, norm=norm, padding=padding)
    kinds = {(block.kernel, block.stride, block.expansion) for block in config.blocks}
    assert kinds == {(3, 1, 1), (3, 2, 6), (3, 1, 6), (5, 2, 6), (5, 1, 6)}
    params = fill(initial(config))
    found = features(config, params, IMAGES, CONDITION)
    in_double = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    expected = numpy_network(np.asarray(IMAGES, float), CONDITION, in_double, config)
    assert found.shape == expected.shape == (2, *grid, config.top_channels)
    assert config.grid == grid
    assert np.std(expected, axis=(1, 2)).max() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_film_begins_as_nothing_and_then_modulates(fill):
    config = dataclasses.replace(CONFIG, num_stages=2, depth=0.5)
    params = fill(initial(config))
    plain = {name: leaves for name, leaves in params.items() if "film" not in name}
    bare = initial(config, condition=None)
    assert jax.tree.structure(bare) == jax.tree.structure(plain)
    expected = features(config, plain, IMAGES, None)

    films = jax.jit(Film(jnp.float32).init)(jax.random.key(0), expected, CONDITION)["params"]
    assert not any(leaf.value.any() for leaf in jax.tree.leaves(films, is_leaf=is_box))
    zeros = jax.tree.map(jnp.zeros_like, params)
    films = {name: leaves for name, leaves in zeros.items() if "film" in name}
    assert len(films) == len(config.blocks) == 2
    found = features(config, {**plain, **films}, IMAGES, CONDITION)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    modulated = features(config, params, IMAGES, CONDITION)
    assert np.abs(modulated - expected).mean() > 0.1 * np.abs(expected).mean()


def test_stored_statistics_do_not_learn():
    norm = ChannelNorm("frozen_batch", jnp.float32)
    x = jnp.asarray(DRAW.normal(size=(2, 3, 3, 8)), jnp.float32)
    params = {name: jnp.full(8, 0.5) for name in ("scale", "bias", "mean", "var")}
    gradients = jax.grad(lambda p: jnp.sum(norm.apply({"params": p}, x) ** 2))(params)
    assert not gradients["mean"].any() and not gradients["var"].any()
    assert gradients["scale"].all() and gradients["bias"].all()


@pytest.mark.parametrize("norm", ["frozen_batch", "group"])
def test_a_norm_of_one_picture_does_not_depend_on_others(norm):
    x = jnp.asarray(DRAW.normal(size=(2, 3, 3, 16)), jnp.float32)
    module = ChannelNorm(norm, jnp.float32)
    apply, params = module.apply, module.init(jax.random.key(0), x)
    np.testing.assert_allclose(apply(params, x)[1:], apply(params, x[1:]), rtol=1e-5, atol=1e-6)


def test_drop_connect_skips_whole_residuals_in_training_only(fill):
    config = dataclasses.replace(CONFIG, depth=2.0, num_stages=1, drop_connect_rate=0.9)
    net, params = EfficientNet(config, jnp.float32), fill(initial(config))
    skipped = {**params, "block_1": jax.tree.map(jnp.zeros_like, params["block_1"])}
    always, never = (features(config, part, IMAGES, CONDITION) for part in (params, skipped))

    @jax.jit
    def train(key):
        rngs = {"dropout": key}
        return net.apply({"params": params}, IMAGES, CONDITION, False, rngs=rngs)

    # The second of two blocks is dropped with a probability of 0.45.
    found = np.concatenate([train(jax.random.key(seed)) for seed in range(6)])
    expected = np.tile(never, (6, 1, 1, 1))
    dropped = np.abs(found - expected).max(axis=(1, 2, 3)) < 1e-4
    assert 0 < dropped.sum() < len(dropped)
    assert np.abs(always - never).max(axis=(1, 2, 3)).min() > 1e-2
