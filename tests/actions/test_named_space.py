"""Spaces from lists of names: what is stated is in them, what is not is said to be unknown."""

import pytest

from rt2_jax.actions import FixedBounds, QuantileBounds, named_action_space

NAMES = ["left_wrist", "left_gripper", "right_wrist", "right_gripper"]
GRIPPERS = {"*_gripper": {"unit": "1", "polarity": "high_is_open"}}


def space(fields=GRIPPERS, **options):
    options = {"control_rate_hz": 30, "reference": "absolute", **options}
    return named_action_space("arms", NAMES, fields=fields, **options)


def test_every_name_is_a_field_behind_terminate():
    made = space()
    assert made.names == ("terminate", *NAMES) and made.control_rate_hz == 30
    assert space(terminate=False).names == tuple(NAMES)


def test_a_field_of_which_nothing_is_stated_says_so():
    wrist = space(reference="current_state").fields[1]
    assert (wrist.unit, wrist.frame, wrist.bounds) == ("as recorded", "none", QuantileBounds())
    assert wrist.describe().startswith("left_wrist: as recorded, added to the measured state, q01")


def test_patterns_state_what_is_known_and_later_ones_win():
    made = space(
        {
            **GRIPPERS,
            "left_*": {"frame": "joint", "reference": "previous_target"},
            "left_wrist": {"unit": "rad", "bounds": FixedBounds(-1, 1)},
        }
    )
    _, left, hand, right, _ = made.fields
    assert (left.unit, left.frame, left.bounds) == ("rad", "joint", FixedBounds(-1, 1))
    assert (hand.unit, hand.frame, hand.reference) == ("1", "joint", "previous_target")
    assert (right.unit, right.frame, right.reference) == ("as recorded", "none", "absolute")


def test_a_gripper_without_a_polarity_is_refused():
    with pytest.raises(ValueError, match="'left_gripper' is a gripper without a polarity"):
        space({})


def test_a_pattern_that_fits_nothing_is_answered_with_the_names():
    with pytest.raises(ValueError, match="'middle_.' fits no field; they are .'left_wrist', 'left"):
        space({**GRIPPERS, "middle_*": {"unit": "rad"}})
