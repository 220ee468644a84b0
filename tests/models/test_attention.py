"""Attention: the fused kernel, run by JAX's interpreter, gives what XLA gives."""

import contextlib
import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.experimental.pallas import tpu as pltpu

from rt2_jax.models import attention
from rt2_jax.models.attention import attend
from rt2_jax.models.config import VisionConfig
from rt2_jax.models.recomputed import MASKED, masked_softmax
from rt2_jax.models.vit import VisionTransformer
from rt2_jax.training.mesh import MeshShape, make_mesh
from rt2_jax.training.partitioning import Partitioner

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture
def on_tpu(monkeypatch):
    """Traces for a TPU, whose kernels JAX interprets here."""
    monkeypatch.setattr(attention, "_platform", lambda: "tpu")
    with pltpu.force_tpu_interpret_mode(True):
        yield


@pytest.fixture
def said(caplog):
    """What the log says."""
    attention._say_once.cache_clear()
    caplog.set_level(logging.INFO, "rt2_jax.models")
    return lambda: [record.getMessage() for record in caplog.records]


def inputs(rows, queries, keys, heads, kv_heads, bias=None, mask=None):
    """Random queries, keys and values of 8 features, a bias, and a mask of what is padding."""
    draw = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(draw.normal(size=shape), jnp.float32)

    arrays = [normal(rows, queries, heads, 8), *(normal(rows, keys, kv_heads, 8) for _ in "kv")]
    if mask == "padding":
        mask = (np.arange(keys) < draw.integers(keys // 2, keys, (rows, 1)))[:, None, None]
    elif mask == "prefix":
        mask = np.tril(np.ones((queries, keys), bool)) | (np.arange(keys) < 40)
        mask = np.stack([mask, mask & (np.arange(keys) != 3)])[:rows, None]
    return arrays, None if mask is None else jnp.asarray(mask), bias and normal(*bias)


def outputs_and_gradients(arrays, mask, bias, implementation):
    def loss(arrays, bias):
        mixed = attend(*arrays, mask, bias, scale=0.4, implementation=implementation)
        return jnp.sum(jnp.sin(3 * mixed)), mixed

    (_, mixed), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(arrays, bias)
    return mixed, gradients


def assert_same(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, expected)


CASES = {
    "a vision transformer": inputs(2, 128, 128, 2, 2),
    "an encoder with padding and a learned bias": inputs(
        2, 130, 130, 2, 2, bias=(1, 2, 130, 130), mask="padding"
    ),
    "a prefix language model of one head of keys": inputs(2, 130, 130, 2, 1, mask="prefix"),
    "groups of heads with a bias of each head": inputs(1, 128, 200, 4, 2, bias=(1, 4, 128, 200)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_fused_kernel_and_its_gradients_are_those_of_xla(case, on_tpu, said):
    found = outputs_and_gradients(*CASES[case], "fused")
    assert_same(found, outputs_and_gradients(*CASES[case], "xla"))
    assert said() == []


def test_no_weights_of_all_queries_and_keys_are_kept_for_the_gradient(on_tpu):
    arrays, _, _ = inputs(1, 256, 384, 2, 2)

    def largest(implementation):
        def loss(q):
            return attend(q, *arrays[1:], None, None, implementation=implementation).sum()

        kept = jax.tree.leaves(jax.eval_shape(lambda q: jax.vjp(loss, q)[1], arrays[0]))
        return max(leaf.size for leaf in kept)

    assert largest("xla") >= 2 * 256 * 384 > 4 * largest("fused")


@pytest.mark.parametrize(
    ("kv_heads", "devices"), [(2, 8), pytest.param(1, 8, marks=pytest.mark.slow)]
)
def test_a_mesh_divides_rows_and_heads_of_the_fused_kernel(kv_heads, devices, on_tpu, said):
    case = inputs(4, 128, 130, 2, kv_heads, bias=(1, 2, 128, 130), mask="padding")
    partitioner = Partitioner(
        make_mesh(MeshShape(data=2, fsdp=2, tensor=2), jax.devices()[:devices])
    )
    expected = outputs_and_gradients(*case, "xla")
    with partitioner.active():
        found = outputs_and_gradients(*case, "fused")
    assert_same(found, expected)
    assert said() == []


@pytest.mark.parametrize(
    ("shape", "mesh", "reason"),
    [
        ((1, 1, 200, 2, 2), {}, "1 queries of 200 keys, fewer than 128"),
        ((1, 200, 20, 2, 2), {}, "200 queries of 20 keys, fewer than 128"),
        ((3, 128, 128, 2, 2), {"data": 2}, "3 rows cannot be divided into 2 parts of the mesh"),
        ((2, 128, 128, 3, 3), {"tensor": 2}, "3 heads cannot be divided into 2 parts"),
    ],
)
def test_what_the_kernel_cannot_do_xla_does_and_the_log_says_why(shape, mesh, reason, on_tpu, said):
    arrays, mask, bias = inputs(*shape)
    expected = attend(*arrays, mask, bias)
    context = contextlib.nullcontext()
    if mesh:
        mesh = make_mesh(MeshShape(**{"data": 1, **mesh}), jax.devices()[:2])
        context = Partitioner(mesh).active()
    with context:
        for _ in range(2):
            found = attend(*arrays, mask, bias, implementation="fused", where="encoder/attention")
    np.testing.assert_array_equal(found, expected)
    (line,) = said()
    assert line.startswith("encoder/attention: attention is computed by XLA") and reason in line


def test_dropout_of_the_weights_is_left_to_xla(on_tpu, said):
    case = inputs(1, 128, 128, 1, 1)

    def dropout(weights):
        return weights.at[..., ::2].set(0)

    (arrays, mask, bias), options = case, {"dropout": dropout}
    found = attend(*arrays, mask, bias, implementation="fused", **options)
    np.testing.assert_array_equal(found, attend(*arrays, mask, bias, **options))
    assert "no dropout of attention weights" in said()[0]


def test_without_a_tpu_the_switch_changes_nothing_but_the_log(said):
    case = inputs(1, 128, 128, 1, 1)
    found = outputs_and_gradients(*case, "fused")
    jax.tree.map(np.testing.assert_array_equal, found, outputs_and_gradients(*case, "xla"))
    assert "no kernel for the platform cpu" in said()[0]


def test_another_implementation_is_refused():
    with pytest.raises(ValueError, match="found 'flash', expected one of xla, fused"):
        attend(*inputs(1, 4, 4, 1, 1)[0], None, None, implementation="flash")


def test_the_switch_reaches_the_layers_of_a_model_and_its_weights_serve_both(on_tpu, said):
    config = VisionConfig(
        image_size=(32, 64), patch_size=4, embed_dim=16, num_layers=1, num_heads=2, mlp_dim=16
    )
    xla = VisionTransformer(config, jnp.float32, scan_layers=True)
    fused = dataclasses.replace(xla, attention="fused")
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3)), jnp.uint8)
    params = nn.unbox(jax.jit(xla.init)(jax.random.key(0), images))
    assert "pallas_call" in str(jax.make_jaxpr(fused.apply)(params, images))
    assert "pallas_call" not in str(jax.make_jaxpr(fused.init)(jax.random.key(0), images))
    np.testing.assert_allclose(
        jax.jit(fused.apply)(params, images), jax.jit(xla.apply)(params, images), **CLOSE
    )
    assert said() == []


def test_the_masked_softmax_has_the_gradient_of_its_formula_also_where_all_is_masked():
    draw = np.random.default_rng(0)
    logits, cotangent = (jnp.asarray(draw.normal(size=(3, 2, 5)), jnp.float32) for _ in range(2))
    mask = jnp.asarray([[[1, 1, 0, 1, 0]], [[0, 0, 0, 0, 0]], [[1, 1, 1, 1, 1]]], bool)

    def plain(logits):
        return jax.nn.softmax(jnp.where(mask, logits, MASKED))

    found, back = jax.vjp(lambda logits: masked_softmax(logits, mask), logits)
    expected, plain_back = jax.vjp(plain, logits)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(back(cotangent)[0], plain_back(cotangent)[0], atol=1e-6)
    assert np.all(np.asarray(back(cotangent)[0][1]) == 0)
