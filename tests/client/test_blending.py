"""Averages of actions, field by field; rotations are averaged as rotations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.actions.bounds import FixedBounds
from rt2_jax.actions.space import ROTATIONS, TERMINATE_LEVELS, ActionField, ActionSpace
from rt2_jax.client.blending import Blend
from rt2_jax.client.rotations import TO_MATRIX, from_matrix

ANY = FixedBounds(-10, 10)


def rotation(kind):
    fields = [
        ActionField(f"r{i}", "rad", "base", "absolute", ANY, rotation=kind)
        for i in range(ROTATIONS[kind])
    ]
    return ActionSpace("turn", tuple(fields), 10)


def about(axis, angle):
    """Rodrigues' formula, written out again."""
    x, y, z = axis
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def test_each_representation_is_what_its_name_says():
    x, y, z = np.eye(3)
    turn = about(z, 0.3) @ about(y, 0.2) @ about(x, 0.1)  # x first: fixed axes
    np.testing.assert_allclose(TO_MATRIX["euler_xyz"](np.array([0.1, 0.2, 0.3])), turn)
    other = about(x, 0.3) @ about(y, 0.2) @ about(z, 0.1)
    np.testing.assert_allclose(TO_MATRIX["euler_zyx"](np.array([0.1, 0.2, 0.3])), other)
    axis = np.array([1, 2, 2]) / 3
    turn = about(axis, 0.7)
    np.testing.assert_allclose(TO_MATRIX["rotation_vector"](0.7 * axis), turn)
    wxyz = np.array([np.cos(0.35), *np.sin(0.35) * axis])
    np.testing.assert_allclose(TO_MATRIX["quaternion_wxyz"](wxyz), turn)
    np.testing.assert_allclose(TO_MATRIX["quaternion_xyzw"](np.array([*wxyz[1:], wxyz[0]])), turn)
    np.testing.assert_allclose(TO_MATRIX["rot6d_columns"](turn[:, :2].T.ravel()), turn)
    np.testing.assert_allclose(TO_MATRIX["rot6d_rows"](turn[:, :2].ravel()), turn)


@given(st.sampled_from(sorted(TO_MATRIX)), st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_a_rotation_comes_back_from_its_matrix(kind, numbers):
    numbers = np.array(numbers[: ROTATIONS[kind]])
    if kind.startswith(("quaternion", "rot6d")):
        numbers[0] += 4  # neither zero nor parallel
        numbers[1:3] *= 0.1
        numbers[-2] += 4 if kind == "rot6d_columns" else 0
        numbers[3:4] += 4 if kind == "rot6d_rows" else 0
    turn = TO_MATRIX[kind](numbers)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    back = from_matrix(kind, turn, like=numbers)
    np.testing.assert_allclose(TO_MATRIX[kind](back), turn, atol=1e-7)


def test_equal_predictions_stay_as_they_are():
    rng = np.random.default_rng(1)
    for kind in TO_MATRIX:
        row = rng.uniform(-0.5, 0.5, ROTATIONS[kind])
        row = from_matrix(kind, TO_MATRIX[kind](row), like=row)
        mean = Blend(rotation(kind), 0.1)(np.stack([row, row]).astype(np.float32))
        np.testing.assert_allclose(mean, row, atol=1e-6)


def test_quaternions_of_opposite_sign_are_one_rotation():
    row = np.array([0.8, 0.6, 0, 0], np.float32)
    mean = Blend(rotation("quaternion_wxyz"), 0.0)(np.stack([row, -row]))
    np.testing.assert_allclose(mean, -row, atol=1e-6)  # a naive mean is zero


def test_angles_on_both_sides_of_pi_meet_at_pi():
    mean = Blend(rotation("single_axis"), 0.0)(np.array([[3.1], [-3.1]], np.float32))
    np.testing.assert_allclose(abs(mean), np.pi, atol=1e-6)
    near = np.array([[0, 0, 3.1], [0, 0, -3.1]], np.float32)
    for kind in ("euler_xyz", "rotation_vector"):
        mean = Blend(rotation(kind), 0.0)(near)
        np.testing.assert_allclose(abs(mean[2]), np.pi, atol=1e-6)


def test_grippers_and_terminate_are_the_newest_and_numbers_are_means():
    mixed = ActionSpace(
        "mixed",
        (
            ActionField("terminate", "level", "none", "absolute", levels=TERMINATE_LEVELS),
            ActionField("joint", "rad", "joint", "absolute", ANY),
            ActionField("gripper", "1", "none", "absolute", ANY, polarity="high_is_open"),
        ),
        10,
    )
    rows = np.array([[0, 1, 0], [1, 2, 0], [1, 6, 1]], np.float32)
    np.testing.assert_allclose(Blend(mixed, 0.0)(rows), [1, 3, 1])


def test_a_rotation_nobody_can_read_is_refused():
    with pytest.raises(ValueError, match="in a representation that the data set does not say"):
        Blend(rotation("as_recorded"), 0.0)
