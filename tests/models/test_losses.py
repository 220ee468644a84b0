"""Losses against hand computations, and sums that add up."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.losses import MetricSum, example_sums, normalize_weights, token_cross_entropy

LOGITS = np.log(np.array([[[1, 2, 5], [4, 2, 2]], [[6, 1, 1], [1, 1, 2]]], float))
TARGETS = jnp.array([[2, 1], [0, 0]])
WEIGHTS = jnp.array([[1.0, 0.5], [2.0, 0.0]])


def test_the_cross_entropy_is_what_a_hand_finds():
    cross_entropy, z = token_cross_entropy(jnp.asarray(LOGITS), TARGETS, z_loss=0.1)
    expected = [[math.log(8 / 5), math.log(8 / 2)], [math.log(8 / 6), math.log(4 / 1)]]
    np.testing.assert_allclose(cross_entropy, expected, rtol=1e-5)
    np.testing.assert_allclose(z[0], 0.1 * math.log(8) ** 2, rtol=1e-5)


def test_weights_count_each_target_as_often_as_they_say():
    sums = example_sums(jnp.asarray(LOGITS), TARGETS, WEIGHTS)
    first = math.log(8 / 5) + 0.5 * math.log(8 / 2)
    np.testing.assert_allclose(sums.cross_entropy, [first, 2 * math.log(8 / 6)], rtol=1e-5)
    np.testing.assert_allclose(sums.weight, [1.5, 2.0])
    np.testing.assert_allclose(sums.correct, [1.0, 2.0])


def test_label_smoothing_costs_nothing_at_the_smoothed_distribution():
    smoothed = jnp.log(jnp.array([0.05, 0.9, 0.05]))
    at_best, _ = token_cross_entropy(smoothed, jnp.array(1), label_smoothing=0.1)
    beside, _ = token_cross_entropy(smoothed * 2, jnp.array(1), label_smoothing=0.1)
    np.testing.assert_allclose(at_best, 0, atol=1e-6)
    assert beside > 0.01


def test_label_smoothing_is_the_cross_entropy_to_the_smoothed_distribution():
    logits, smoothed = jnp.asarray(LOGITS[0, 0]), np.array([0.05, 0.05, 0.9])
    entropy = -np.sum(smoothed * np.log(smoothed))
    expected = -np.sum(smoothed * np.asarray(jax.nn.log_softmax(logits))) - entropy
    found, _ = token_cross_entropy(logits, jnp.array(2), label_smoothing=0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("factor", "divisor"),
    [(None, 1), (7.0, 7), ("NUM_REAL_TARGET_TOKENS", 3.5), ("NUM_TOTAL_TARGET_TOKENS", 4)],
)
def test_the_loss_is_divided_as_t5x_divides_it(factor, divisor):
    batch = {"decoder_target_tokens": TARGETS, "decoder_loss_weights": WEIGHTS}
    weights, found = normalize_weights(factor, batch)
    assert found == divisor
    np.testing.assert_array_equal(weights, WEIGHTS)


def test_on_average_per_sequence_every_example_counts_the_same():
    weights = jnp.array([[1.0, 3.0], [2.0, 0.0], [0.0, 0.0]])
    batch = {"decoder_target_tokens": weights.astype(int), "decoder_loss_weights": weights}
    found, divisor = normalize_weights("AVERAGE_PER_SEQUENCE", batch)
    np.testing.assert_allclose(found, [[0.25, 0.75], [1, 0], [0, 0]])
    assert divisor == 2


def test_an_unknown_normalization_is_refused_by_name():
    batch = {"decoder_target_tokens": TARGETS, "decoder_loss_weights": WEIGHTS}
    with pytest.raises(ValueError, match="found 'MEAN', .*AVERAGE_PER_SEQUENCE"):
        normalize_weights("MEAN", batch)


def test_means_of_parts_add_up_to_the_mean_of_the_whole():
    parts = MetricSum(jnp.float32(3), jnp.float32(1)) + MetricSum(jnp.float32(1), jnp.float32(3))
    assert parts.compute() == 1
    assert MetricSum(jnp.float32(0), jnp.float32(0)).compute() == 0
