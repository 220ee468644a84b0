"""The order of a mixture's sources: every share held exactly, evenly and without end."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.data.mixture_order import MixtureOrder, source_seed

shares = st.lists(st.floats(0.01, 1), min_size=1, max_size=30)


@given(shares)
@settings(max_examples=50, deadline=None)
def test_a_period_holds_every_share_to_half_a_percent(wanted):
    order = MixtureOrder(wanted)
    found = order.counts / order.counts.sum()
    exact = np.array(wanted) / sum(wanted)
    assert (abs(found - exact) <= 0.005 * exact).all()


@given(shares, st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_every_part_of_the_stream_holds_the_shares(wanted, place):
    order = MixtureOrder(wanted)
    found = order.taken(place)
    exact = order.counts / order.counts.sum()
    assert found.sum() == place
    assert (abs(found - exact * place) < 1 + len(wanted) * exact / 2).all()


@given(shares, st.integers(0, 10**7))
@settings(max_examples=50, deadline=None)
def test_a_place_says_how_many_of_its_source_came_before(wanted, place):
    order = MixtureOrder(wanted)
    source, number = order[place]
    assert order.taken(place)[source] == number
    after = order.taken(place + 1)
    after[source] -= 1
    assert (after == order.taken(place)).all()


def test_an_order_goes_on_from_what_was_taken():
    order = MixtureOrder([3, 1], taken=[100, 7])
    assert [order[i] for i in range(4)] == [(0, 100), (0, 101), (1, 7), (0, 102)]
    assert order.taken(4).tolist() == [103, 8]


@pytest.mark.parametrize("wanted", [[], [1, 0], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_shares_are_positive_numbers(wanted):
    with pytest.raises(ValueError, match="expected some positive numbers"):
        MixtureOrder(wanted)


def test_a_share_that_no_period_can_hold_is_refused():
    with pytest.raises(ValueError, match="the least is 1e-05 of the mixture, expected .* 6e-05"):
        MixtureOrder([1, 1e-5])


def test_seeds_differ_by_seed_source_and_purpose():
    made = {
        source_seed(*each) for each in [(0, "a", "x"), (1, "a", "x"), (0, "b", "x"), (0, "a", "y")]
    }
    assert len(made) == 4 and max(made) < 2**32
