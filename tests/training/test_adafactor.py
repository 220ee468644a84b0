"""Adafactor against a reference in NumPy, float64, written from the paper's algorithm 4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.training.adafactor import Adafactor

RATE = 0.05


def reference(adafactor, params, gradients, factored):
    """One parameter without a batch axis; `factored`: (rows, columns) or None."""
    params, momentum = np.asarray(params, float), 0.0
    row = column = second = 0.0
    for t, gradient in enumerate(np.asarray(gradients, float), start=1):
        decay = 1 - float(t) ** -adafactor.decay_rate
        squared = gradient**2 + adafactor.epsilon1
        if factored:
            row = decay * row + (1 - decay) * squared.mean(1)
            column = decay * column + (1 - decay) * squared.mean(0)
            estimate = np.outer(row, column) / row.mean()
        else:
            second = decay * second + (1 - decay) * squared
            estimate = second
        update = gradient / np.sqrt(estimate)
        if adafactor.clipping_threshold is not None:
            rms = np.sqrt(np.mean(update**2))
            update = update / max(1, rms / adafactor.clipping_threshold)
        scale = RATE
        if adafactor.multiply_by_parameter_scale:
            scale *= max(adafactor.epsilon2, np.sqrt(np.mean(params**2)))
        update = scale * update
        if adafactor.beta1 is not None:
            momentum = update = adafactor.beta1 * momentum + (1 - adafactor.beta1) * update
        params = params - update - (adafactor.weight_decay_rate or 0) * params
    return params


def run(adafactor, axes, params, gradients):
    transformation = adafactor.transformation({"w": axes})
    tree = {"w": jnp.asarray(params, jnp.float32)}
    state = transformation.init(tree)
    for step, gradient in enumerate(gradients):
        updates, state = transformation.update(
            {"w": jnp.asarray(gradient, jnp.float32)},
            state,
            tree,
            step=jnp.int32(step),
            learning_rate=jnp.float32(RATE),
        )
        tree = jax.tree.map(jnp.add, tree, updates)
    return np.asarray(tree["w"]), state["w"]


def drawn(*shape, steps=5):
    draw = np.random.default_rng(0)
    gradients = draw.normal(size=(steps, *shape)) * draw.lognormal(size=(steps, *shape))
    return draw.normal(size=shape) * 0.1, gradients


@pytest.mark.parametrize(
    "adafactor",
    [
        Adafactor(min_dim_size_to_factor=4),
        Adafactor(min_dim_size_to_factor=4, beta1=0.9, decay_rate=0.5),
        Adafactor(min_dim_size_to_factor=4, weight_decay_rate=0.01, clipping_threshold=None),
        Adafactor(min_dim_size_to_factor=4, multiply_by_parameter_scale=False),
        Adafactor(min_dim_size_to_factor=9),
        Adafactor(factored=False),
    ],
    ids=["default", "momentum", "weight decay", "absolute rate", "too small", "never factored"],
)
@pytest.mark.parametrize("shape", [(8, 12), (12, 8)])
def test_a_matrix_follows_the_reference(adafactor, shape):
    params, gradients = drawn(*shape)
    factored = adafactor.factored and adafactor.min_dim_size_to_factor <= 8
    found, moments = run(adafactor, ("embed", "mlp"), params, gradients)
    np.testing.assert_allclose(
        found, reference(adafactor, params, gradients, factored), rtol=1e-4, atol=1e-6
    )
    shapes = [moments.v_row.shape, moments.v_col.shape, moments.v.shape]
    assert sorted(shapes) == sorted([(8,), (12,), (1,)] if factored else [(1,), (1,), shape])


def test_a_vector_is_not_factored_and_tiny_ones_move_by_epsilon2():
    params, gradients = np.zeros(6), drawn(6)[1]
    found, _ = run(Adafactor(), ("embed",), params, gradients)
    np.testing.assert_allclose(
        found, reference(Adafactor(), params, gradients, None), rtol=1e-4, atol=1e-9
    )
    first, _ = run(Adafactor(), ("embed",), params, gradients[:1])
    np.testing.assert_allclose(first, -RATE * 1e-3 * np.sign(gradients[0]), rtol=1e-5)


def test_every_scanned_layer_is_a_parameter_of_its_own():
    params, gradients = drawn(6, 3, 7)
    params[:, 1] *= 100
    found, moments = run(Adafactor(), ("embed", "layers", "mlp"), params, gradients)
    for layer in range(3):
        expected = reference(Adafactor(), params[:, layer], gradients[:, :, layer], (0, 1))
        np.testing.assert_allclose(found[:, layer], expected, rtol=1e-4, atol=1e-6)
    assert moments.v_row.shape == (6, 3) and moments.v_col.shape == (3, 7)


def test_a_scanned_vector_is_clipped_within_its_layer():
    params, gradients = drawn(6, 3)
    gradients[1:, :, 1] *= 1e3
    found, moments = run(Adafactor(), ("embed", "layers"), params, gradients)
    for layer in range(3):
        expected = reference(Adafactor(), params[:, layer], gradients[:, :, layer], None)
        np.testing.assert_allclose(found[:, layer], expected, rtol=1e-4, atol=1e-6)
    assert moments.v.shape == (6, 3)


def test_step_offset_begins_the_decay_anew():
    params, gradients = drawn(6)
    adafactor = Adafactor(step_offset=3)
    transformation = adafactor.transformation(("embed",))
    params = jnp.asarray(params, jnp.float32)
    state = transformation.init(params).replace(v=jnp.full(6, 1e6))
    updates, _ = transformation.update(
        jnp.asarray(gradients[0], jnp.float32),
        state,
        params,
        step=jnp.int32(3),
        learning_rate=jnp.float32(RATE),
    )
    scale = RATE * np.sqrt(np.mean(np.square(params)))
    np.testing.assert_allclose(updates, -scale * np.sign(gradients[0]), rtol=1e-5)


def test_an_axis_that_adafactor_does_not_know_is_refused_by_name():
    with pytest.raises(KeyError, match=r"stem/kernel: Adafactor has no rule .*\['patch'\]"):
        Adafactor().transformation({"stem": {"kernel": ("patch", "embed")}})


def test_rows_columns_and_an_axis_that_is_neither_are_refused():
    with pytest.raises(ValueError, match="w: found rows, columns and an axis that is neither"):
        Adafactor().transformation({"w": ("relpos_buckets", "embed", "mlp")})
