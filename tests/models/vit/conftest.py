"""Tiny vision transformers: that of 2021, ViT-22B's block, and the former with one change each."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.config import VisionConfig
from rt2_jax.models.layer_stack import unstack_layers
from rt2_jax.models.published_vision import VIT_22B
from rt2_jax.models.vit import VisionTransformer

VIT = VisionConfig(
    image_size=(12, 8), patch_size=4, embed_dim=24, num_layers=2, num_heads=3, mlp_dim=20
)
CHANGES = {
    name: getattr(VIT_22B, name)
    for name in ("parallel_block", "qk_norm", "qkv_bias", "norm_bias", "norm_centering")
}
CONFIGS = {
    "vit": VIT,
    "vit_22b": dataclasses.replace(VIT, **CHANGES),
    **{name: dataclasses.replace(VIT, **{name: value}) for name, value in CHANGES.items()},
}


@pytest.fixture(scope="session", params=CONFIGS)
def config(request):
    """`vit`, `vit_22b`, and `vit` with one field of `vit_22b` each."""
    return CONFIGS[request.param]


@pytest.fixture(scope="session")
def configs():
    """All of them by name."""
    return CONFIGS


@functools.cache
def _make_params(config):
    """Random where a new model has ones, zeros and sines, so that every parameter counts."""
    images = jax.ShapeDtypeStruct((1, *config.image_size, 3), jnp.uint8)
    module = VisionTransformer(config, jnp.dtype("float32"), True)
    boxed = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
    draw = np.random.default_rng(0)

    def fill(path, box):
        name, shape = path[-1].key, box.value.shape
        noise = draw.standard_normal(shape, np.float32)
        if name == "kernel":
            return jnp.asarray(noise * 1.5 * shape[0] ** -0.5)
        return jnp.asarray(1 + noise / 3 if name == "scale" else noise / 3)

    return jax.tree_util.tree_map_with_path(fill, boxed, is_leaf=lambda x: hasattr(x, "names"))


@pytest.fixture(scope="session")
def make_params():
    """`make_params(config)`: of scanned layers."""
    return _make_params


@functools.partial(jax.jit, static_argnums=0)
def _apply(module, params, images):
    return module.apply({"params": params}, images)


@pytest.fixture(scope="session")
def tokens_of():
    """`tokens_of(config, images, scan_layers=True, dtype="float32")`: [P, tokens, E]."""

    def run(config, images, scan_layers=True, dtype="float32"):
        params = _make_params(config)
        module = VisionTransformer(config, jnp.dtype(dtype), scan_layers)
        return _apply(module, params if scan_layers else unstack_layers(params), images)

    return run


@pytest.fixture(scope="session")
def make_images():
    """`make_images(config)`: two pictures, uint8 [2, H, W, 3]."""

    def make(config):
        draw = np.random.default_rng(1)
        return jnp.asarray(draw.integers(0, 256, (2, *config.image_size, 3)), jnp.uint8)

    return make
