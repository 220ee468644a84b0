"""Intervals and tests equal published values and a slow, plain computation."""

import math

import pytest

from rt2_jax.evaluation.success import PairedComparison, SuccessRate, clopper_pearson, compare


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe, 1998, Statistics in Medicine 17, 857-872, table I, method 5 (Clopper-Pearson).
        (81, 263, 0.2527, 0.3676),
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
        # "Rule of three" in its exact form: 1 - 0.025 ** (1 / 100).
        (0, 100, 0.0, 1 - 0.025 ** (1 / 100)),
        (100, 100, 0.025 ** (1 / 100), 1.0),
    ],
)
def test_intervals_equal_published_values(successes, trials, low, high):
    assert clopper_pearson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "trials"), [(1, 7), (3, 7), (35, 50), (99, 100)])
def test_each_end_of_the_interval_leaves_a_fortieth_in_its_tail(successes, trials):
    def at_least(k, p):
        return sum(
            math.comb(trials, i) * p**i * (1 - p) ** (trials - i) for i in range(k, trials + 1)
        )

    low, high = clopper_pearson(successes, trials)
    assert at_least(successes, low) == pytest.approx(0.025, rel=1e-6)
    assert 1 - at_least(successes + 1, high) == pytest.approx(0.025, rel=1e-6)


def test_a_rate_prints_its_counts_and_its_interval():
    rate = SuccessRate(81, 263)
    assert str(rate) == "81/263 = 30.8% (95 % CI 25.3% to 36.8%)"
    assert rate.to_json()["interval"] == list(rate.interval)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (5, 4), (-1, 4)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match=f"found {successes} successes of {trials}, expected"):
        SuccessRate(successes, trials)


def test_a_confidence_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match="confidence: found 95, expected a number between 0 and 1"):
        clopper_pearson(1, 2, 95)


def test_mcnemar_equals_the_binomial_sum():
    first_only, second_only = 3, 12
    tail = sum(math.comb(15, i) for i in range(4)) / 2**15
    comparison = PairedComparison(40, first_only, second_only, 45)
    assert comparison.p_value == pytest.approx(2 * tail)
    assert PairedComparison(40, 12, 3, 45).p_value == pytest.approx(2 * tail)
    assert "only the first 3, only the second 12" in str(comparison)


def test_policies_that_never_differ_are_not_different():
    assert PairedComparison(10, 0, 0, 5).p_value == 1.0


def test_scenes_are_paired_by_their_name_not_their_order():
    first = {("reach", 1): True, ("reach", 2): True, ("push", 1): False, ("push", 2): False}
    second = {("push", 2): False, ("push", 1): True, ("reach", 2): False, ("reach", 1): True}
    assert compare(first, second) == PairedComparison(1, 1, 1, 1)


def test_a_comparison_of_other_scenes_is_refused():
    with pytest.raises(ValueError, match=r"found 2 and 1, 1 of them played by one policy only"):
        compare({1: True, 2: False}, {1: True})
    with pytest.raises(ValueError, match="needs the same scenes: found 0 and 0"):
        compare({}, {})
