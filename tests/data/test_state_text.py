"""A robot's state as text: ranges of the data, equal parts, nothing outside them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.actions.space import rt2_action_space
from rt2_jax.data.state_text import StateRanges, StateText
from rt2_jax.data.task_info import RobotInfo

SPACE = rt2_action_space(
    "test_arm",
    translation_bound_m=0.05,
    rotation_bound_rad=0.25,
    gripper_polarity="high_is_open",
    control_rate_hz=5.0,
)
ROBOT = RobotInfo("arm", SPACE, ("x", "y", "z"))
RANGES = StateRanges("arm", "test_arm", ("x", "y", "z"), 9, (0.0, -1.0, 5.0), (1.0, 1.0, 5.5))


def numbers(text):
    assert text.startswith("State: ") and text.endswith(".")
    return [int(word) for word in text[len("State: ") : -1].split()]


@given(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), st.integers(2, 256))
def test_each_number_is_the_part_of_its_range_that_it_lies_in(state, bins):
    written = numbers(StateText(RANGES, ("z", "x"), bins).write(np.float32(state), "step 1"))
    for part, name in zip(written, ("z", "x"), strict=True):
        index = RANGES.fields.index(name)
        low, high = RANGES.low[index], RANGES.high[index]
        value = np.clip(np.float32(state[index]), low, high)
        width = (high - low) / bins
        assert 0 <= part < bins
        assert low + part * width - 1e-6 <= value <= low + (part + 1) * width + 1e-6


def test_ranges_are_quantiles_and_what_never_moves_has_one_too():
    states = np.stack([np.linspace(0, 1, 101), np.full(101, 3.0), np.linspace(-5, 5, 101)], axis=1)
    found = StateRanges.compute(ROBOT, states.astype(np.float32))
    np.testing.assert_allclose(found.low, [0.01, 2.995, -4.9], atol=1e-6)
    np.testing.assert_allclose(found.high, [0.99, 3.005, 4.9], atol=1e-6)
    assert found.count == 101
    assert StateRanges.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_longest_text_is_known_before_any_state():
    text = StateText(RANGES, ("x", "y"), 200)
    assert numbers(text.longest(len)) == [100, 100]  # of the three-digit ones the first
    assert numbers(text.longest(lambda number: number.count("7"))) == [77, 77]


def test_what_cannot_be_written_is_said():
    with pytest.raises(KeyError, match=r"'arm': no numbers \['w'\]; it has \['x', 'y', 'z'\]"):
        StateText(RANGES, ("x", "w"), 10)
    with pytest.raises(ValueError, match="a low below its high"):
        StateRanges("arm", "test_arm", ("x",), 3, (1.0,), (1.0,))
    writer = StateText(RANGES, ("x",), 10)
    with pytest.raises(KeyError, match="step 4: no state, but the model reads"):
        writer.write(None, "step 4")


def test_what_is_outside_is_told_and_another_unit_is_refused():
    writer = StateText(RANGES, ("x", "z"), 10)
    assert writer.outside(np.float32([0.5, 0.0, 5.2]), "step 1") == ()
    assert writer.outside(np.float32([1.5, 0.0, 4.8]), "step 1") == ("x", "z")
    with pytest.raises(ValueError, match="step 1: state 'x' is 480, but in training it was 0 to 1"):
        writer.outside(np.float32([480.0, 0.0, 5.2]), "step 1")


def test_ranges_that_are_declared_are_kept_and_must_rise():
    robot = RobotInfo("arm", SPACE, ("x", "y"), (("y", -2.0, 2.0),))
    found = StateRanges.compute(robot, np.zeros((5, 2), np.float32))
    assert (found.low[1], found.high[1]) == (-2.0, 2.0)
    for wrong in (("w", 0.0, 1.0), ("x", 1.0, 1.0), ("x", 0.0, float("inf"))):
        with pytest.raises(ValueError, match="a rising range of one of"):
            RobotInfo("arm", SPACE, ("x", "y"), (wrong,))
