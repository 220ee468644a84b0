"""Positions: T5's buckets, sines, and resampling to another resolution."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.models.position import relative_buckets, resample_positions, sine_positions


def t5_bucket(distance, bidirectional, buckets, farthest):
    """One distance, by the words of Raffel et al. 2020, section 2.1."""
    offset = 0
    if bidirectional:
        buckets //= 2
        offset = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return offset + distance
    grown = math.log(distance / exact) / math.log(farthest / exact) * (buckets - exact)
    return offset + min(exact + int(grown + 1e-6), buckets - 1)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 20)])
def test_every_distance_has_t5s_bucket(bidirectional, buckets, farthest):
    distance = np.arange(-300, 301)
    found = relative_buckets(jnp.asarray(distance), bidirectional, buckets, farthest)
    assert found.tolist() == [t5_bucket(d, bidirectional, buckets, farthest) for d in distance]


def test_sine_positions_depend_on_the_distance_between_places_only():
    table = sine_positions((5, 4), 16).reshape(5, 4, 16)
    products = np.einsum("ijc,klc->ijkl", table, table)
    np.testing.assert_allclose(products[0, 0, 2, 1], products[1, 2, 3, 3], rtol=1e-5)
    assert len(np.unique(table.reshape(20, 16).round(4), axis=0)) == 20


@given(st.integers(1, 5), st.integers(1, 5))
def test_resampling_to_the_same_grid_changes_nothing(rows, columns):
    table = jnp.asarray(np.random.default_rng(0).normal(size=(rows * columns, 3)), jnp.float32)
    same = resample_positions(table, (rows, columns), (rows, columns))
    np.testing.assert_allclose(same, table, rtol=1e-6)


def test_resampling_keeps_what_is_linear_in_the_place():
    table = jnp.repeat(jnp.arange(4.0), 2)[:, None]
    finer = resample_positions(table, (4, 2), (8, 2)).reshape(8, 2)
    expected = [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    np.testing.assert_allclose(finer, np.stack([expected, expected], axis=1), atol=1e-6)


def test_a_table_of_another_grid_is_refused():
    with pytest.raises(ValueError, match="found 7 rows, expected 8 for a grid of 4 x 2"):
        resample_positions(jnp.zeros((7, 3)), (4, 2), (8, 4))
