"""Names of cameras and state in openpi's, OpenVLA's and other clients' requests."""

import numpy as np
import pytest

from rt2_jax.serving.requests import Schema

from .conftest import Toy

PICTURE = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)
OTHER = PICTURE[::-1].copy()
LIBERO = {"observation/image": PICTURE, "observation/wrist_image": OTHER}
DROID = {"observation/exterior_image_1_left": PICTURE, "observation/wrist_image_left": OTHER}
ALOHA = {
    "images": {
        name: np.ascontiguousarray(each.transpose(2, 0, 1))
        for name, each in zip(
            ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"),
            (PICTURE, PICTURE + 1, OTHER, OTHER + 1),
            strict=True,
        )
    }
}
OFT = {"full_image": PICTURE, "my_wrist_camera": OTHER}
YAM = {"top_cam": PICTURE, "left_cam": OTHER, "right_cam": OTHER + 1}


def read(frame, views=("front", "wrist"), cameras=None, **metadata):
    schema = Schema(Toy(views=views, **metadata).metadata, cameras)
    request = schema.read({"prompt": b"go", **frame}, "s")
    return request.observation, request.warnings


@pytest.mark.parametrize("frame", [LIBERO, DROID, OFT], ids=["LIBERO", "DROID", "OFT"])
def test_two_cameras_are_the_first_view_and_the_wrist(frame):
    seen, warnings = read(frame)
    np.testing.assert_array_equal(seen.images["front"], PICTURE)
    np.testing.assert_array_equal(seen.images["wrist"], OTHER)
    assert seen.instruction == "go" and warnings == ()


def test_alohas_four_cameras_are_found_channels_first():
    views = ("head", "low", "left_wrist", "right_wrist")
    seen, warnings = read(ALOHA, views)
    np.testing.assert_array_equal(seen.images["head"], PICTURE)
    np.testing.assert_array_equal(seen.images["low"], PICTURE + 1)
    np.testing.assert_array_equal(seen.images["left_wrist"], OTHER)
    np.testing.assert_array_equal(seen.images["right_wrist"], OTHER + 1)
    assert warnings == ()
    assert read(ALOHA, ("head",))[1] == tuple(
        f"nobody reads 'images/{name}' of the request" for name in list(ALOHA["images"])[1:]
    )


def test_three_cameras_at_the_top_are_found_by_side():
    seen, _ = read(YAM, ("top", "left", "right"))
    np.testing.assert_array_equal(seen.images["right"], OTHER + 1)


def test_a_camera_that_cannot_be_told_is_not_guessed_but_can_be_named():
    with pytest.raises(KeyError, match="no picture of view 'left_side'"):
        read({"observation/image": PICTURE, "wrist_image": OTHER}, ("front", "left_side", "right"))
    cameras = {"wrist_image": "left_side", "agentview": "front"}
    seen, _ = read(
        {"images": {"agentview": PICTURE, "wrist_image": OTHER}}, ("front", "left_side"), cameras
    )
    np.testing.assert_array_equal(seen.images["left_side"], OTHER)
    with pytest.raises(ValueError, match="camera 'a': found view 'side', expected one of"):
        Schema(Toy().metadata, {"a": "side"})


def test_the_policys_own_names_go_before_all():
    seen, warnings = read(
        {"images": {"front": PICTURE, "wrist": OTHER}, "observation/image": OTHER}
    )
    np.testing.assert_array_equal(seen.images["front"], PICTURE)
    assert warnings == ("nobody reads 'observation/image' of the request",)


def test_floats_from_0_to_1_are_the_pixels_that_were_meant():
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    seen, _ = read({"image": (every / 255).astype(np.float32)}, ("front",))
    np.testing.assert_array_equal(seen.images["front"], every)
    for wrong in (every.astype(np.float32), every / 127.5 - 1, np.full((4, 4, 3), np.nan)):
        with pytest.raises(ValueError, match="images/front: found floats from .* expected 0 to 1"):
            read({"image": wrong}, ("front",))


def test_droids_joints_and_gripper_are_one_state_where_it_is_read():
    state = {"observation/joint_position": np.arange(2.0), "observation/gripper_position": [0.5]}
    seen, warnings = read({**DROID, **state}, state_fields=["a", "b", "gripper"])
    assert seen.state.tolist() == [0, 1, 0.5] and seen.state.dtype == np.float32
    assert warnings == ()
    seen, warnings = read({**DROID, **state})
    assert seen.state is None and len(warnings) == 2
    with pytest.raises(ValueError, match="a state of shape \\[3\\]"):
        read({**DROID, **state}, state_fields=["a"])


def test_committed_actions_are_checked_and_named_as_unread():
    _, warnings = read({**LIBERO, "committed_actions": np.ones((2, 8))})
    assert warnings == ("nobody reads 'committed_actions' of the request",)
    with pytest.raises(ValueError, match=r"committed_actions: expected shape \[..., 8\]"):
        read({**LIBERO, "committed_actions": np.ones((2, 7))})


def test_another_protocol_is_refused():
    with pytest.raises(ValueError, match="protocol_version: found 9, expected 1"):
        read({**LIBERO, "protocol_version": 9})


def test_the_metadata_say_what_is_read_and_nothing_that_changes():
    metadata = Schema(Toy(views=("front",)).metadata).metadata
    assert metadata == Schema(Toy(views=("front",)).metadata).metadata
    inputs = metadata["inputs"]
    assert inputs["required"] == ["prompt", "images/front"]
    assert "state" in inputs["ignored"] and inputs["cameras"]["full_image"] == "front"
    assert metadata["deterministic"] is True and metadata["versions"]["protocol"] == 1
    assert metadata["statistics_keys"] == ["toy"]
    assert len(metadata["plain_actions"]) == 7
