"""Rotary positions: products of queries and keys depend on the distance between them alone."""

import jax.numpy as jnp
import numpy as np

from rt2_jax.models.rotary import rotate, rotation_of

DRAW = np.random.default_rng(0)


def turned(x, positions, base=10_000.0):
    by = rotation_of(jnp.asarray([positions]), x.shape[-1], base)
    return np.asarray(rotate(jnp.broadcast_to(jnp.asarray(x), (1, len(positions), 1, len(x))), by))


def test_products_depend_on_the_distance_alone():
    query, key = DRAW.normal(size=(2, 8)).astype(np.float32)
    near = turned(query, [3, 20, 900])[0, :, 0] * turned(key, [1, 18, 898])[0, :, 0]
    np.testing.assert_allclose(near.sum(axis=-1), near[0].sum(), rtol=2e-3)
    far = turned(query, [3])[0, 0, 0] @ turned(key, [2])[0, 0, 0]
    assert abs(far - near[0].sum()) > 1e-2


def test_position_zero_turns_nothing_and_no_position_changes_lengths():
    x = DRAW.normal(size=8).astype(np.float32)
    found = turned(x, [0, 5, 2047])
    np.testing.assert_array_equal(found[0, 0, 0], x)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), np.linalg.norm(x), rtol=1e-5)


def test_feature_i_turns_with_feature_i_plus_half_at_its_own_speed():
    x = np.zeros(8, np.float32)
    x[1] = 1.0
    angle = 3 / 100.0 ** (2 / 8)
    expected = np.zeros(8)
    expected[1], expected[5] = np.cos(angle), np.sin(angle)
    np.testing.assert_allclose(turned(x, [3], base=100.0)[0, 0, 0], expected, atol=1e-6)


def test_bfloat16_inputs_are_turned_in_float32():
    x = jnp.ones((1, 1, 1, 8), jnp.bfloat16)
    by = rotation_of(jnp.array([[257]]), 8, 10_000.0)
    found = rotate(x, by)
    assert found.dtype == jnp.bfloat16
    expected = rotate(x.astype(jnp.float32), by).astype(jnp.bfloat16)
    np.testing.assert_array_equal(found, expected)
