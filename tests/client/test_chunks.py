"""Answers of several actions: what is executed when."""

import numpy as np
import pytest

from rt2_jax.actions.bounds import FixedBounds
from rt2_jax.actions.space import ActionField, ActionSpace, rt2_action_space
from rt2_jax.client import ActionChunks

ANY = FixedBounds(-10, 10)


def space(reference="absolute"):
    return ActionSpace("one", (ActionField("x", "m", "base", reference, ANY),), 10)


def chunk(*values):
    return np.array([[value] for value in values], np.float32)


def taken(chunks, count):
    return [None if (a := chunks.next()) is None else float(a[0]) for _ in range(count)]


def test_one_after_the_other_asks_when_an_answer_is_used_up():
    chunks = ActionChunks(space(), execute=2)
    assert chunks.wants
    chunks.add(chunk(1, 2, 3), asked_at=0)
    assert not chunks.wants and taken(chunks, 1) == [1]
    assert not chunks.wants and taken(chunks, 2) == [2, None]
    assert chunks.wants and chunks.executed == 2


def test_what_was_executed_meanwhile_is_left_out_of_a_prefetched_answer():
    chunks = ActionChunks(space("previous_target"), "prefetch", ahead=3)
    chunks.add(chunk(0, 1, 2, 3), asked_at=0)
    assert not chunks.wants and taken(chunks, 1) == [0]
    assert chunks.wants
    asked_at = chunks.executed  # a picture is taken here, at position 1
    assert taken(chunks, 2) == [1, 2]
    chunks.add(chunk(11, 12, 13, 14), asked_at)
    assert taken(chunks, 3) == [13, 14, None]  # 3 of the old answer is replaced


def test_nothing_is_left_out_for_time_in_which_the_robot_held():
    chunks = ActionChunks(space(), "prefetch")
    assert taken(chunks, 3) == [None] * 3
    chunks.add(chunk(1, 2), asked_at=0)
    assert taken(chunks, 2) == [1, 2]


def test_an_answer_that_is_wholly_past_is_counted_and_never_executed():
    chunks = ActionChunks(space(), "prefetch")
    chunks.add(chunk(0, 1, 2), asked_at=0)
    taken(chunks, 3)
    chunks.add(chunk(7, 8), asked_at=0)
    assert chunks.outdated == 1 and taken(chunks, 1) == [None]


def test_an_ensemble_weighs_as_act_does():
    chunks = ActionChunks(space(), "ensemble", decay=0.5)
    chunks.add(chunk(0, 1, 2), asked_at=0)
    assert taken(chunks, 1) == [0] and chunks.wants
    chunks.add(chunk(10, 20), asked_at=1)
    old, new = 1.0, np.exp(-0.5)
    first = (old * 1 + new * 10) / (old + new)
    second = (old * 2 + new * 20) / (old + new)
    np.testing.assert_allclose(taken(chunks, 2), [first, second], rtol=1e-6)
    assert chunks.row == 1 and taken(chunks, 1) == [None]


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("previous_target", "is added to the previous target"),
        ("current_state", "is added to the measured state"),
        ("chunk_start", "is added to the state at the start of its own chunk"),
        ("as_recorded", "has a reference that the data set does not say"),
    ],
)
def test_an_ensemble_of_relative_actions_is_refused_with_the_reason(reference, why):
    with pytest.raises(ValueError, match=f"field 'x' {why}.*cannot be averaged; use mode 'pre"):
        ActionChunks(space(reference), "ensemble")


def test_rt2s_own_actions_are_not_averaged():
    rt2 = rt2_action_space(
        "r",
        translation_bound_m=0.05,
        rotation_bound_rad=0.25,
        gripper_polarity="high_is_open",
        control_rate_hz=3,
    )
    with pytest.raises(ValueError, match="field 'position_delta_x' is added to the previous"):
        ActionChunks(rt2, "ensemble")
    ActionChunks(rt2, "prefetch")


def test_actions_from_the_start_of_a_chunk_are_not_prefetched():
    with pytest.raises(ValueError, match=r"fields \['x'\] are added to the state at the start"):
        ActionChunks(space("chunk_start"), "prefetch")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "rtc"}, "mode: found 'rtc', expected one of"),
        ({"execute": 0}, "execute: found 0, expected 1 or more"),
        ({"mode": "prefetch", "ahead": 0}, "ahead: found 0, expected 1 or more"),
        ({"mode": "ensemble", "decay": -1}, "decay: found -1, expected 0 or more"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ActionChunks(space(), **options)
    chunks = ActionChunks(space())
    with pytest.raises(ValueError, match=r"found shape \[1, 2\], expected \[K, 1\]"):
        chunks.add(np.zeros((1, 2), np.float32), 0)
    with pytest.raises(ValueError, match="asked_at: found 1, only 0 were executed"):
        chunks.add(chunk(1), 1)
