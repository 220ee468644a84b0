"""Plans: what a teacher says of a scene is so, and is what the expert then does."""

import numpy as np
import pytest

from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.plans import plan_points
from rt2_jax.sim.policies import make_policy
from rt2_jax.sim.render import RenderSettings


@pytest.mark.parametrize("skill", ["reach", "push"])
def test_a_plan_names_things_and_where_they_are(skill):
    env = TabletopEnv(skill, render=RenderSettings(height=16, width=16))
    for seed in range(10):
        env.reset(seed=seed)
        env.step(np.array([1, 0.02, 0.01, -0.01, 0, 0, 0, 0], np.float32))
        names, points = plan_points(env)
        scene, data = env.scene, env.simulation.data
        for place, role in enumerate(("target", "goal")):
            there = role in scene.roles
            assert names[place] == (scene.objects[scene.roles[role]].name if there else "")
            if there:
                body = data.body(f"object_{scene.roles[role]}").xpos
                np.testing.assert_allclose(points[place][:2], body[:2], atol=1e-3)
        assert names[2] in ("over", "down")


@pytest.mark.parametrize("skill", ["reach", "push"])
def test_the_expert_goes_where_its_plan_says(skill):
    env = TabletopEnv(skill, render=RenderSettings(height=16, width=16))
    expert, nearer = make_policy("expert", env), []
    for seed in range(5):
        env.reset(seed=seed)
        before = 1.0
        while before > 0.06:
            following = plan_points(env)[1][2][:2]
            before = np.linalg.norm(following - env.table_state().tip[:2])
            env.step(expert.infer(None)["actions"][0])
            nearer.append(np.linalg.norm(following - env.table_state().tip[:2]) < before - 0.01)
    assert np.mean(nearer) > 0.9


@pytest.mark.parametrize("skill", ["reach", "push"])
def test_the_word_says_what_the_expert_does(skill):
    """Over: along the table; down: to it; push: along it, low; up: away from it; stop: the end."""
    env = TabletopEnv(skill, render=RenderSettings(height=16, width=16))
    expert, words = make_policy("expert", env), []
    for seed in range(5):
        env.reset(seed=seed)
        done = False
        while not done:
            word = plan_points(env)[0][2]
            action = expert.infer(None)["actions"][0]
            along, rise, low = np.abs(action[1:3]).max(), action[3], env.table_state().tip[2] < 0.03
            assert {
                "over": along > 0,
                "down": rise < 0.02,
                "push": low and abs(rise) < 0.02,
                "up": low and rise > 0.02,
                "stop": action[0] == 0,
            }[word], (word, action)
            words.append(word)
            done = env.step(action)[2]
        assert words[-1] == "stop"
    assert set(words) >= {"over", "down", "stop", *({"push"} if skill == "push" else ())}
