"""Rematerialisation: the same loss and gradients, in less memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rt2_jax.models.config import REMAT
from rt2_jax.models.layer_stack import apply_layers
from rt2_jax.models.layers import EncoderLayer
from rt2_jax.models.model import VisionLanguageModel

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


class Layers(nn.Module):
    """Encoder layers with dropout."""

    remat: str
    scan: bool = True
    count: int = 8

    @nn.compact
    def __call__(self, x, deterministic=True):
        fields = {
            "num_heads": 2,
            "head_dim": 8,
            "mlp_dim": 256,
            "mlp_activations": ("gelu", "linear"),
            "dtype": jnp.float32,
            "dropout_rate": 0.3,
        }
        layers = apply_layers(EncoderLayer, fields, self.count, self.scan, self.remat)
        return layers(x, None, None, None, deterministic)[0]


def gradients(layers, length, deterministic=True):
    """The compiled function of parameters and [4, length, 16], and the parameters' shapes."""
    x = jnp.ones((4, length, 16))
    params = jax.eval_shape(layers.init, jax.random.key(0), x)

    def loss(params, x):
        rngs = {"dropout": jax.random.key(2, impl="unsafe_rbg")}
        return jnp.sum(jnp.square(layers.apply(params, x, deterministic, rngs=rngs)))

    params = nn.unbox(params)
    return jax.jit(jax.value_and_grad(loss)).lower(params, x).compile(), params


@pytest.mark.parametrize("scan", [True, False], ids=["scanned", "written out"])
def test_loss_and_gradients_with_dropout_are_those_of_layers_that_keep_all(scan):
    draw, results = np.random.default_rng(0), {}
    policies = ("none", "named", "full") if scan else ("none", "full")
    for remat in policies:
        compute, shapes = gradients(Layers(remat, scan, 2), 8, deterministic=False)
        if not results:
            arrays = jax.tree.map(
                lambda leaf: jnp.asarray(draw.normal(size=leaf.shape, scale=0.3), leaf.dtype),
                (shapes, jnp.ones((4, 8, 16))),
            )
        results[remat] = compute(*arrays)
    for remat in policies[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
            results[remat],
            results["none"],
        )


def bytes_of(remat):
    """Temporary memory of the gradient, as XLA compiles it."""
    return gradients(Layers(remat), 64)[0].memory_analysis().temp_size_in_bytes


@pytest.fixture(scope="module")
def whole():
    return bytes_of("none")


@pytest.mark.parametrize(("remat", "part"), [("full", 0.5), ("named", 0.7)])
def test_scanned_layers_that_compute_again_need_less_memory(whole, remat, part):
    assert bytes_of(remat) < part * whole


def test_of_each_policy_the_gradient_keeps_no_more_than_it_says():
    x = jnp.ones((2, 16, 16))

    def kept(remat):
        layers = Layers(remat, scan=False, count=2)
        params = nn.unbox(jax.eval_shape(layers.init, jax.random.key(0), x))

        def residuals(params, x):
            return jax.vjp(layers.apply, params, x)[1]

        leaves = jax.tree.leaves(jax.eval_shape(residuals, params, x))
        return sum(leaf.size for leaf in leaves)

    sizes = {remat: kept(remat) for remat in REMAT}
    assert sizes["full"] < sizes["named"] < sizes["dots"] < sizes["none"]


def test_another_policy_is_refused():
    with pytest.raises(ValueError, match="remat: found 'some', expected one of none, full, dots"):
        Layers("some").init(jax.random.key(0), jnp.ones((1, 2, 16)))


@pytest.fixture(scope="module")
def loss(make_batch):
    """`loss(config)`: a function of the parameters, with dropout; and these."""

    def make(config):
        model, batch = VisionLanguageModel(config), make_batch(config)
        key = jax.random.key(3, impl="unsafe_rbg")
        return lambda params: model.loss_fn(params, batch, key)[0]

    return make


@pytest.fixture(scope="module")
def dropping(patches):
    return dataclasses.replace(patches, text=dataclasses.replace(patches.text, dropout_rate=0.3))


def test_the_field_reaches_vision_encoder_and_decoder(loss, dropping, patches_params):
    config = dataclasses.replace(dropping, remat="full")
    program = str(jax.make_jaxpr(loss(config))(patches_params))
    assert program.count("policy=<function nothing_saveable") == 3


@pytest.fixture(scope="module")
def kept(loss, dropping, patches_params):
    """The loss and the gradients where everything is kept."""
    return jax.jit(jax.value_and_grad(loss(dropping)))(patches_params)


@pytest.mark.slow
@pytest.mark.parametrize("remat", REMAT[1:])
def test_a_whole_model_has_the_loss_and_gradients_of_one_that_keeps_all(
    loss, dropping, patches_params, kept, remat, full_check
):
    if remat == "full" and not full_check:
        pytest.skip("in the full form only: of layers it is compared above")
    config = dataclasses.replace(dropping, remat=remat)
    found = jax.jit(jax.value_and_grad(loss(config)))(patches_params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, kept)
