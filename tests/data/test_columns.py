"""Columns of RLDS data sets: what may be written, and what each named transform does."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.data.columns import TRANSFORMS, parse_column
from rt2_jax.data.rlds_columns import RldsColumns


def numbers(text, **fields):
    return parse_column(text).numbers({k: tf.constant(v) for k, v in fields.items()}).numpy()


def test_a_column_is_a_part_of_a_field_and_transforms_in_order():
    steps = np.float32([[1, 2, 3], [4, 5, -6]])
    assert numbers("a[1:] | scale 2 | clip 0 8", a=steps).tolist() == [[4, 6], [8, 0]]
    assert numbers("a[-1:] | invert", a=steps).tolist() == [[-2], [7]]
    assert numbers("zeros 2", a=steps).tolist() == [[0, 0], [0, 0]]
    assert numbers("ones 1", a=steps).tolist() == [[1], [1]]


def test_a_scalar_of_any_type_is_one_column():
    assert numbers("open", open=np.array([True, False])).tolist() == [[1], [0]]
    assert numbers("mode[:1]", mode=np.int32([[1, 0], [0, 1]])).tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a | flip", r"transform 'flip' is not known; known: \['absolute_gripper'"),
        ("a |", "transform '' is not known"),
        ("a | clip 0", r"clip takes 2 number\(s\) \['low', 'high'\], found \['0'\]"),
        ("a | scale x", r"scale takes 1 number\(s\)"),
        ("a[0]", r"'a\[0\]' is no field; expected PATH, PATH\[START:STOP\]"),
        ("", "is no field"),
    ],
)
def test_a_wrong_column_is_refused_when_it_is_written(text, message):
    with pytest.raises(ValueError, match=message):
        parse_column(text)
    with pytest.raises(ValueError, match=message):
        RldsColumns(views={"front": "image"}, text="text", action=(text,))


@pytest.mark.parametrize(
    ("changes", "states"),
    [
        ([0, 0, 0], [1, 1, 1]),
        ([0, 1, 0, -1, 0], [1, 0, 0, 1, 1]),
        ([0, -1, 0.05, 1], [0, 1, 1, 0]),
        ([1, 1, -0.09], [0, 0, 0]),
    ],
)
def test_changes_of_a_gripper_become_its_state(changes, states):
    found = numbers("g | absolute_gripper", g=np.float32(changes))
    assert found[:, 0].tolist() == states


@pytest.mark.parametrize(
    ("values", "states"),
    [
        ([1, 0.6, 0.3, 0], [1, 0, 0, 0]),
        ([0.5, 0.97, 0.04, 0.5, 0.96], [1, 1, 0, 1, 1]),
        ([0, 0.25, 0.5], [0, 0.5, 0.5]),
    ],
)
def test_values_between_open_and_closed_take_what_is_reached_after_them(values, states):
    assert numbers("g | binary_gripper", g=np.float32(values))[:, 0].tolist() == states


def test_a_difference_is_the_way_to_the_next_step():
    assert numbers("x | difference", x=np.float32([1, 3, 2])).tolist() == [[2], [-1], [0]]


def rotation(roll, pitch, yaw):
    """About the fixed axes x, then y, then z."""

    def about(axis, angle):
        c, s = math.cos(angle), math.sin(angle)
        matrix = np.eye(3)
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        matrix[i, i], matrix[j, j], matrix[i, j], matrix[j, i] = c, c, -s, s
        return matrix

    return about(2, yaw) @ about(1, pitch) @ about(0, roll)


def matrix_of(x, y, z, w):
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@settings(max_examples=40)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_euler_angles_turn_as_the_quaternion_does(quaternion):
    norm = np.linalg.norm(quaternion)
    if norm < 0.1:
        return
    found = numbers("q | euler_from_quaternion", q=np.float32([quaternion]))[0]
    np.testing.assert_allclose(rotation(*found), matrix_of(*quaternion / norm), atol=2e-3)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("roll", [-2.0, 0.0, 0.7])
def test_euler_angles_hold_at_a_pitch_of_a_right_angle(roll, sign):
    half_roll, half_pitch = roll / 2, sign * math.pi / 4
    a, b = math.sin(half_roll), math.cos(half_roll)
    c, d = math.sin(half_pitch), math.cos(half_pitch)
    quaternion = [a * d, b * c, -a * c, b * d]
    found = numbers("q | euler_from_quaternion", q=np.float32([quaternion]))[0]
    np.testing.assert_allclose(rotation(*found), rotation(roll, sign * math.pi / 2, 0), atol=2e-3)


def test_character_codes_become_text_without_their_filling():
    codes = np.zeros((2, 6), np.int32)
    codes[0, :3] = [ord(letter) for letter in "aé "]
    column = parse_column("t | decode_characters")
    found = column.texts({"t": tf.constant(codes)}).numpy()
    assert [text.decode() for text in found] == ["aé ", ""]


def test_the_vocabulary_of_transforms_is_small():
    assert len(TRANSFORMS) <= 10
