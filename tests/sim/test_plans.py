"""Plans: what a teacher says of a scene is what the camera sees."""

import mujoco
import numpy as np
import pytest

from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.plans import plan_points
from rt2_jax.sim.policies import make_policy
from rt2_jax.sim.render import RenderSettings


@pytest.mark.parametrize("skill", ["reach", "push"])
def test_a_plan_points_at_what_the_camera_sees_there(skill):
    seen = []
    env = TabletopEnv(skill, render=RenderSettings(height=16, width=16))
    for seed in range(10):
        env.reset(seed=seed)
        env.step(np.array([1, 0.02, 0.01, -0.01, 0, 0, 0, 0], np.float32))
        names, points = plan_points(env)
        scene = env.scene
        assert (scene.objects[scene.roles["target"]].name, "gripper") == (names[0], names[2])
        assert names[1] == (scene.objects[scene.roles["goal"]].name if skill == "push" else "")
        assert points[3][0] > points[2][0], "the floor is not below the tip"
        for role, point in zip(("target", "goal")[: len(scene.roles)], points, strict=False):
            seen.append(body_behind(env.simulation, point) == f"object_{scene.roles[role]}")
        tip = env.simulation.data.body("hand").xpos * (1, 1, 0)
        assert np.linalg.norm(floor_behind(env.simulation, points[3]) - tip) < 1e-3
    assert np.mean(seen) > 0.8, "the arm hides some, but not so many"


@pytest.mark.parametrize("skill", ["reach", "push"])
def test_the_expert_goes_where_its_plan_says(skill):
    env = TabletopEnv(skill, render=RenderSettings(height=16, width=16))
    expert, nearer = make_policy("expert", env), []
    for seed in range(5):
        env.reset(seed=seed)
        before = 1.0
        while before > 0.06:
            following = floor_behind(env.simulation, plan_points(env)[1][4])[:2]
            before = np.linalg.norm(following - env.table_state().tip[:2])
            env.step(expert.infer(None)["actions"][0])
            nearer.append(np.linalg.norm(following - env.table_state().tip[:2]) < before - 0.01)
    assert np.mean(nearer) > 0.9


def line_of_sight(simulation, point):
    """The front camera's place and the direction in which it sees a point of its picture."""
    camera, row, column = simulation.data.camera("front"), *(point - 0.5)
    height = 2 * np.tan(np.radians(simulation.model.camera("front").fovy[0]) / 2)
    return camera.xpos, camera.xmat.reshape(3, 3) @ [column * height, -row * height, -1.0]


def body_behind(simulation, point):
    origin, direction = line_of_sight(simulation, point)
    geom = np.zeros(1, np.int32)
    mujoco.mj_ray(simulation.model, simulation.data, origin, direction, None, 1, -1, geom)
    return simulation.model.body(simulation.model.geom_bodyid[geom[0]]).name


def floor_behind(simulation, point):
    origin, direction = line_of_sight(simulation, point)
    return origin - direction * origin[2] / direction[2]
