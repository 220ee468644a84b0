"""Experts solve the world, and what is no expert does not: success means something."""

import numpy as np
import pytest
from PIL import Image

from rt2_jax.actions.policy import Policy
from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.film import Film
from rt2_jax.sim.policies import POLICIES, make_policy
from rt2_jax.sim.render import RenderSettings
from rt2_jax.sim.rollout import Outcome, outcome, play

BLIND = RenderSettings(height=2, width=2)  # none of these policies looks at the picture


def _outcomes(skill: str, policy: str, seeds: range, **options) -> list[Outcome]:
    env = TabletopEnv(skill, render=BLIND)
    player = make_policy(policy, env)
    return [outcome(env, list(play(env, player, seed, **options))) for seed in seeds]


def _share(outcomes: list[Outcome]) -> float:
    return sum(o.success for o in outcomes) / len(outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("skill", ["reach", "push"])
def test_the_expert_succeeds_in_at_least_95_percent_of_scenes(skill, full_check):
    """Of 1,000 in the full form; the short one plays the first 40."""
    count = 1000 if full_check else 40
    outcomes = _outcomes(skill, "expert", range(10_000, 10_000 + count))
    assert _share(outcomes) >= 0.95, [o for o in outcomes if not o.success]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["random", "do_nothing"])
@pytest.mark.parametrize("skill", ["reach", "push"])
def test_random_motion_and_standing_still_succeed_in_at_most_5_percent(skill, policy, full_check):
    count = 60 if full_check else 20
    assert _share(_outcomes(skill, policy, range(10_000, 10_000 + count))) <= 0.05


@pytest.mark.parametrize(
    ("skill", "seed", "steps", "tip", "target"),
    [
        ("reach", 7, 7, (0.027, -0.043, 0.047), (0.026, -0.043)),
        ("reach", 8, 8, (0.081, -0.123, 0.046), (0.080, -0.123)),
        ("push", 13, 12, (-0.027, 0.030, 0.012), (-0.041, 0.063)),
        ("push", 14, 13, (0.068, -0.048, 0.012), (0.068, -0.024)),
    ],
)
def test_what_the_expert_does_in_a_scene_never_drifts(skill, seed, steps, tip, target):
    """Who changes this on purpose raises `SIMULATION_VERSION`. MuJoCos differ in their contacts."""
    env = TabletopEnv(skill, render=BLIND)
    assert abs(len(list(play(env, make_policy("expert", env), seed))) - steps) <= 1
    state = env.table_state()
    assert state.tip == pytest.approx(tip, abs=0.008)
    assert state.centres[env.scene.roles["target"]][:2] == pytest.approx(target, abs=0.008)


def test_the_expert_ends_its_episodes_itself():
    assert all(o.terminated and o.steps < 40 for o in _outcomes("push", "expert", range(8)))


def test_the_expert_keeps_to_the_action_space_and_the_workspace():
    env = TabletopEnv("push", render=BLIND)
    for seed in range(8):
        for step in play(env, make_policy("expert", env), seed):
            assert step.info["clipped"] == [] and step.info["limited"] == []


def test_every_named_policy_is_a_policy():
    env = TabletopEnv("reach", render=BLIND)
    assert all(isinstance(make_policy(name, env), Policy) for name in POLICIES)
    with pytest.raises(ValueError, match="'clever', expected one of expert, random, do_nothing"):
        make_policy("clever", env)


def test_a_random_episode_can_be_repeated():
    first, second = (_outcomes("reach", "random", range(3)) for _ in range(2))
    assert first == second


def test_a_chunk_of_actions_is_executed_in_order():
    env = TabletopEnv("reach", render=BLIND)

    class TwoSteps:
        def reset(self, session=None):
            pass

        def infer(self, observation):
            actions = np.zeros((2, 8), np.float32)
            actions[:, 0] = 1.0
            actions[1, 1] = 0.01
            return {"actions": actions}

    moves = [step.action[1] for step in play(env, TwoSteps(), 0)]
    assert len(moves) == 40
    assert moves == pytest.approx([0.0, 0.01] * 20)


def test_an_answer_that_is_no_action_stops_the_episode_by_name():
    env = TabletopEnv("reach", render=BLIND)

    class Silent:
        def reset(self, session=None):
            pass

        def infer(self, observation):
            return {"action": np.zeros((1, 8), np.float32)}

    with pytest.raises(KeyError, match="reach-0, step 0: expected a dict with 'actions'"):
        list(play(env, Silent(), 0))


def test_a_film_shows_every_step_with_its_instruction(tmp_path):
    env = TabletopEnv("reach", render=BLIND)
    film = Film(tmp_path / "films" / "out.gif", RenderSettings(height=96, width=128))
    steps = list(play(env, make_policy("expert", env), 3, watch=film.watch))
    film.end_episode(outcome(env, steps))
    film.save()
    with Image.open(tmp_path / "films" / "out.gif") as picture:
        assert picture.width == 128 and picture.height > 96
        # The pictures held at the end are one frame of the file that is shown longer.
        assert picture.n_frames >= len(steps)


def test_a_film_needs_a_name_that_ends_in_gif_and_something_to_show(tmp_path):
    with pytest.raises(ValueError, match=r"out.mp4', expected a name that ends in .gif"):
        Film(tmp_path / "out.mp4", BLIND)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Film(tmp_path / "file" / "out.gif", BLIND)
    with pytest.raises(ValueError, match="no episode has been played"):
        Film(tmp_path / "out.gif", BLIND).save()
