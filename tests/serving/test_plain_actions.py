"""Actions for clients that know no `terminate`: OpenVLA's convention."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rt2_jax.actions.bounds import FixedBounds, QuantileBounds
from rt2_jax.actions.space import rt2_action_space
from rt2_jax.serving.plain_actions import PlainActions, roll_pitch_yaw

BOUNDS = {"translation_bound_m": 0.05, "rotation_bound_rad": 0.25, "control_rate_hz": 5}


def space(polarity="high_is_open", **changes):
    return rt2_action_space("arm", gripper_polarity=polarity, **BOUNDS, **changes)


def test_a_rotation_vector_becomes_roll_pitch_and_yaw():
    vectors = np.random.default_rng(0).uniform(-2, 2, (500, 3))
    steep = Rotation.from_euler(
        "xyz", [[x, p, 0] for x in (0.3, -1) for p in (np.pi / 2, -np.pi / 2)]
    )
    vectors = np.concatenate([vectors, np.zeros((1, 3)), steep.as_rotvec()])
    turned = Rotation.from_euler("xyz", roll_pitch_yaw(vectors))
    assert (turned * Rotation.from_rotvec(vectors).inv()).magnitude().max() < 1e-12


def test_terminate_is_left_out_and_where_it_says_so_nothing_moves():
    action = np.float32([[1, 0.01, 0.02, 0.03, 0, 0, 0.1, 0.75]])
    actions = np.concatenate([action, action])
    actions[1, 0] = 0
    plain, ends = PlainActions(space()).convert(actions)
    assert plain.dtype == np.float64 and ends.tolist() == [False, True]
    np.testing.assert_allclose(plain[0], [0.01, 0.02, 0.03, 0, 0, 0.1, 0.75], rtol=1e-6)
    np.testing.assert_array_equal(plain[1], [0, 0, 0, 0, 0, 0, 0.75])


@pytest.mark.parametrize(
    ("polarity", "bounds", "found", "expected"),
    [
        ("high_is_open", FixedBounds(0, 1), 0.8, 0.8),
        ("high_is_closed", FixedBounds(0, 1), 0.8, 0.2),
        ("high_is_open", FixedBounds(-1, 1), 0.5, 0.75),
        ("high_is_closed", FixedBounds(0, 0.08), 0.02, 0.75),
        ("high_is_open", QuantileBounds(), 0.8, 0.8),
    ],
)
def test_a_gripper_is_from_0_to_1_and_1_is_open(polarity, bounds, found, expected):
    plain = PlainActions(space(polarity, gripper_bounds=bounds))
    action = np.float32([[1, 0, 0, 0, 0, 0, 0, found]])
    np.testing.assert_allclose(plain.convert(action)[0][0, 6], expected, rtol=1e-6)
    assert plain.describe()[6]["polarity"] == "high_is_open"


def test_other_rotations_stay_and_the_description_says_which():
    plain = PlainActions(space(rotation="as_recorded"))
    action = np.float32([[1, 0, 0, 0, 0.1, 0.2, 0.25, 0]])
    np.testing.assert_allclose(plain.convert(action)[0][0, 3:6], [0.1, 0.2, 0.25], rtol=1e-6)
    assert plain.describe()[3]["rotation"] == "as_recorded"
    assert PlainActions(space()).describe()[3]["rotation"] == "euler_xyz"
    kept = PlainActions(space(), keep_rotation=True)
    assert kept.describe()[3]["rotation"] == "rotation_vector"
