"""The environment: gymnasium's contract, the action's meaning, and honest judgement."""

import gymnasium.utils.env_checker
import numpy as np
import pytest

from rt2_jax.sim.env import MAX_STEPS, TabletopEnv, to_observation
from rt2_jax.sim.render import RenderSettings
from rt2_jax.sim.simulation import STATE_FIELDS, TABLETOP_ACTIONS

SMALL = RenderSettings(height=16, width=16)
GO_ON = TABLETOP_ACTIONS.fields[0].levels.index("continue")


def action(x=0.0, y=0.0, z=0.0, rotation=(0.0, 0.0, 0.0), gripper=0.0, terminate=False):
    return np.array([0 if terminate else GO_ON, x, y, z, *rotation, gripper], np.float32)


@pytest.fixture
def env():
    env = TabletopEnv("reach", render=SMALL)
    yield env
    env.close()


def test_the_environment_passes_gymnasiums_own_checker(env):
    gymnasium.utils.env_checker.check_env(env, skip_render_check=True)


def test_the_action_space_is_rt2s_eight_fields_at_5_hz():
    assert TABLETOP_ACTIONS.names == (
        "terminate",
        "position_delta_x",
        "position_delta_y",
        "position_delta_z",
        "rotation_delta_x",
        "rotation_delta_y",
        "rotation_delta_z",
        "gripper_extension",
    )
    assert TABLETOP_ACTIONS.control_rate_hz == 5
    assert TABLETOP_ACTIONS.fields[-1].polarity == "high_is_open"


def test_observations_are_what_a_policy_takes(env):
    observed, info = env.reset(seed=1)
    observation = to_observation(observed, "s", 0)
    observation.check()
    assert observation.images["front"].shape == (16, 16, 3)
    assert observation.instruction == env.scene.instruction
    assert observation.state.shape == (len(STATE_FIELDS),)
    assert info["success"] is False


@pytest.mark.parametrize(
    ("axis", "motion"), [(0, (0.05, 0, 0)), (1, (0, 0.05, 0)), (2, (0, 0, 0.05))]
)
def test_a_translation_moves_the_tip_by_that_many_metres(env, axis, motion):
    env.reset(seed=1)
    before = env.table_state().tip
    env.step(action(*motion))
    env.step(action())
    moved = env.table_state().tip - before
    assert moved[axis] == pytest.approx(0.05, abs=0.002)
    assert np.abs(np.delete(moved, axis)).max() < 0.002


def test_deltas_add_up_from_the_previous_target_and_not_from_where_the_tip_is(env):
    env.reset(seed=1)
    before = env.table_state().tip
    for _ in range(6):
        env.step(action(x=0.01))
    env.step(action())
    assert (env.table_state().tip - before)[0] == pytest.approx(0.06, abs=0.001)


def test_a_rotation_turns_the_hand_by_that_many_radians(env):
    env.reset(seed=1)
    env.step(action(rotation=(0, 0, 0.25)))
    observed = env.step(action())[0]
    assert observed["state"][3:6] == pytest.approx([0, 0, 0.25], abs=0.02)


def test_the_gripper_opens_at_1_and_closes_at_0(env):
    env.reset(seed=1)
    for _ in range(3):
        observed = env.step(action(gripper=1.0))[0]
    assert observed["state"][6] == pytest.approx(1.0, abs=0.05)
    for _ in range(3):
        observed = env.step(action(gripper=0.0))[0]
    assert observed["state"][6] == pytest.approx(0.0, abs=0.05)


def test_the_workspace_limits_motion_and_says_so(env):
    env.reset(seed=1)
    limited = [env.step(action(z=-0.05))[4]["limited"] for _ in range(4)]
    assert limited[0] == [] and limited[-1] == ["translation"]
    assert env.table_state().tip[2] > 0
    limited = [env.step(action(rotation=(0.25, 0, 0)))[4]["limited"] for _ in range(4)]
    assert limited[0] == [] and limited[-1] == ["rotation"]


def test_values_outside_the_bounds_are_cut_and_named(env):
    env.reset(seed=1)
    before = env.table_state().tip
    info = env.step(action(x=0.5, gripper=-1.0))[4]
    assert info["clipped"] == ["position_delta_x", "gripper_extension"]
    env.step(action())
    assert (env.table_state().tip - before)[0] == pytest.approx(0.05, abs=0.002)
    assert env.step(action(x=0.05))[4]["clipped"] == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (action(x=np.nan), "step 0: field 'position_delta_x' is nan"),
        (action(y=np.inf), "step 0: field 'position_delta_y' is inf"),
        (np.zeros(7, np.float32), r"step 0: expected shape \[..., 8\]"),
        (np.stack([action(), action()]), "one step at a time"),
        (np.array([0.5, 0, 0, 0, 0, 0, 0, 0]), "'terminate'.*level"),
    ],
)
def test_what_is_no_action_is_refused_and_nothing_moves(env, bad, message):
    env.reset(seed=1)
    before = env.table_state()
    with pytest.raises(ValueError, match=message):
        env.step(bad)
    np.testing.assert_array_equal(env.table_state().tip, before.tip)
    env.step(action())


def test_terminate_ends_the_episode_without_moving(env):
    env.reset(seed=1)
    before = env.table_state().tip
    _, reward, terminated, truncated, info = env.step(action(x=0.05, terminate=True))
    assert (reward, terminated, truncated, info["success"]) == (0.0, True, False, False)
    np.testing.assert_array_equal(env.table_state().tip, before)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(action())


def test_an_episode_is_cut_after_40_steps(env):
    env.reset(seed=1)
    for step in range(1, MAX_STEPS + 1):
        _, _, terminated, truncated, _ = env.step(action())
        assert not terminated
        assert truncated == (step == 40)


def test_only_the_last_step_is_judged(env):
    """Passing over the target and leaving it again is no success."""
    env.reset(seed=1)
    target = env.scene.roles["target"]

    def go_to(goal):
        for _ in range(12):
            motion = np.clip(goal - env.table_state().tip, -0.05, 0.05)
            _, reward, *_, info = env.step(action(*motion))
            assert reward == 0.0
        return info

    top = env.table_state().tops[target]
    assert go_to(top + (0, 0, 0.015))["success"]
    assert not go_to(top + (0, 0, 0.12))["success"]
    _, reward, *_ = env.step(action(terminate=True))
    assert reward == 0.0


def test_a_swapped_instruction_names_another_object_and_is_judged_by_the_first(env):
    plain, _ = env.reset(seed=5)
    swapped, _ = env.reset(seed=5, options={"swap_instruction": True})
    assert plain["instruction"] != swapped["instruction"]
    np.testing.assert_array_equal(plain["images"]["front"], swapped["images"]["front"])


def test_the_same_seed_and_actions_give_the_same_pictures_in_another_environment():
    pictures = []
    for _ in range(2):
        env = TabletopEnv("push", render=SMALL)
        env.reset(seed=9)
        pictures.append([env.step(action(x=0.03, z=-0.01))[0]["images"]["front"] for _ in range(5)])
    np.testing.assert_array_equal(*pictures)


def test_cameras_by_name():
    env = TabletopEnv("reach", render=SMALL, cameras=("front", "wrist"))
    assert set(env.reset(seed=0)[0]["images"]) == {"front", "wrist"}
    with pytest.raises(ValueError, match="'back'.*front, top, wrist"):
        TabletopEnv("reach", render=SMALL, cameras=("back",))


def test_unknown_skills_and_options_are_refused(env):
    with pytest.raises(ValueError, match="'fly', expected one of"):
        TabletopEnv("fly", render=SMALL)
    with pytest.raises(ValueError, match=r"unknown \['swap'\]"):
        env.reset(seed=0, options={"swap": True})
    with pytest.raises(ValueError, match="seed: found -1"):
        env.reset(seed=-1)


def test_before_the_first_reset_the_environment_says_so(env):
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(action())
    with pytest.raises(RuntimeError, match="call reset"):
        _ = env.scene


def test_rotations_are_composed_in_the_base_frame(env):
    """A quarter turn about z, then a tilt about the base's x: the state is their product."""
    env.reset(seed=1)
    for _ in range(8):
        env.step(action(rotation=(0, 0, np.pi / 16)))
    env.step(action(rotation=(0.2, 0, 0)))
    rotation = env.step(action())[0]["state"][3:6]
    turn, tilt = np.eye(3)[[1, 0, 2]] * [[-1], [1], [1]], np.eye(3)
    tilt[1:, 1:] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    assert matrix(rotation) == pytest.approx(tilt @ turn, abs=0.02)
    assert matrix(rotation) != pytest.approx(turn @ tilt, abs=0.1)


def matrix(rotation):
    """Rodrigues' formula: a rotation vector [3] -> a matrix [3, 3]."""
    angle = np.linalg.norm(rotation)
    x, y, z = rotation / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
