import numpy as np
import pytest

import rt2_jax.client
from rt2_jax.actions.policy import Observation, Policy, check_policy_output
from rt2_jax.actions.space import language_table_action_space

SPACE = language_table_action_space()
IMAGE = np.zeros((4, 6, 3), np.uint8)


class StandStill:
    def reset(self, session=None):
        pass

    def infer(self, observation):
        return {"actions": np.zeros((1, SPACE.dimension), np.float32)}


def test_anything_with_reset_and_infer_is_a_policy():
    policy = StandStill()
    assert isinstance(policy, Policy)
    assert not isinstance(object(), Policy)
    result = policy.infer(Observation({"front": IMAGE}, "stand still"))
    assert check_policy_output(SPACE, result) is result["actions"]


def test_the_client_shares_these_types_and_speaks_for_itself():
    assert rt2_jax.client.Policy is Policy
    assert rt2_jax.client.Observation is Observation
    message = "rt2_jax.client has no public name 'foo'; it has ActionChunks, ActionSpace, "
    with pytest.raises(AttributeError, match=message):
        rt2_jax.client.foo  # noqa: B018


@pytest.mark.parametrize("state", [None, np.zeros(0, np.float32), np.ones(7, np.float32)])
def test_a_right_observation_passes(state):
    images = {"front": IMAGE, "wrist": np.zeros((2, 2, 3), np.uint8)}
    Observation(images, "push the red star", state, session="robot-3", step=4).check()


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (IMAGE.astype(np.float32), TypeError, "'wrist' must be a uint8 array, found an array of f"),
        (IMAGE.tolist(), TypeError, "'wrist' must be a uint8 array, found list"),
        (IMAGE.transpose(2, 0, 1), ValueError, r"'wrist' must have shape .*found \[3, 4, 6\]"),
        (IMAGE[None], ValueError, r"'wrist' must have shape .*found \[1, 4, 6, 3\]"),
        (IMAGE[:0], ValueError, r"'wrist' must have shape .*found \[0, 6, 3\]"),
    ],
)
def test_a_wrong_image_is_refused_by_the_cameras_name(image, error, message):
    with pytest.raises(error, match=message):
        Observation({"front": IMAGE, "wrist": image}, "stand still").check()


@pytest.mark.parametrize(
    ("instruction", "state", "error", "message"),
    [
        (b"push", None, TypeError, "instruction must be text, found bytes"),
        ("  ", None, ValueError, "the instruction is empty"),
        ("push", [0.0], TypeError, "state must be a float32 array, found list"),
        ("push", np.zeros(3), TypeError, "found an array of float64"),
        ("push", np.zeros((1, 3), np.float32), ValueError, r"shape \[S\], found \[1, 3\]"),
        ("push", np.float32([0, np.nan]), ValueError, "not finite at index 1: nan"),
    ],
)
def test_a_wrong_instruction_or_state_is_refused(instruction, state, error, message):
    with pytest.raises(error, match=message):
        Observation({"front": IMAGE}, instruction, state).check()


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        ({"action": 0, "b": 1}, KeyError, r"expected a dict with 'actions', found \['action', 'b'"),
        (np.zeros(2), KeyError, "found ndarray"),
        ({"actions": [[0, 0]]}, TypeError, "'actions' must be a float32 array, found list"),
        ({"actions": np.zeros((1, 2))}, TypeError, "found an array of float64"),
        ({"actions": np.zeros(2, np.float32)}, ValueError, r"shape \[K, 2\].*found \[2\]"),
        ({"actions": np.zeros((0, 2), np.float32)}, ValueError, r"K >= 1, found \[0, 2\]"),
        ({"actions": np.zeros((1, 3), np.float32)}, ValueError, r"found \[1, 3\]"),
        (
            {"actions": np.float32([[0, 0], [0, np.inf]])},
            ValueError,
            r"robot 3: actions: field 'effector_target_delta_y' at step \[1\] is inf",
        ),
    ],
)
def test_an_answer_that_is_no_action_chunk_is_refused(result, error, message):
    with pytest.raises(error, match=message):
        check_policy_output(SPACE, result, "robot 3")
