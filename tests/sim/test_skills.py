"""The judges: exactly what the documentation says counts as success, and nothing else."""

import numpy as np
import pytest

from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.experts import ScriptedExpert
from rt2_jax.sim.render import RenderSettings
from rt2_jax.sim.rollout import outcome, play
from rt2_jax.sim.scene import Scene, SceneObject
from rt2_jax.sim.simulation import TABLETOP_ACTIONS
from rt2_jax.sim.skills import TableState, judge
from rt2_jax.sim.world import load_world

WORLD = load_world()
HEIGHT = 0.026
NAMES = ("red star", "blue cube", "green heart")


def scene(skill, **roles) -> Scene:
    objects = tuple(SceneObject(name, *name.split()[::-1], None, 0, 0, 0) for name in NAMES)
    return Scene(skill, 0, objects, roles, "", "", (0, 0, 0), (0, 0, 1), "oak", 0)


def state(tip=(0.0, 0.0, HEIGHT), first=(0.0, 0.0), second=(0.2, 0.0), third=(0.0, 0.2)):
    centres = np.array([(*first, HEIGHT / 2), (*second, HEIGHT / 2), (*third, HEIGHT / 2)])
    return TableState(np.array(tip, float), centres, np.full(3, HEIGHT))


def reach(**where):
    return judge(WORLD, scene("reach", target=0), state(**where))


def push(**where):
    return judge(WORLD, scene("push", target=0, goal=1), state(**where))


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, -1, 0), (0, 0, 1), (0.6, 0, 0.8)])
def test_a_reach_succeeds_up_to_4_cm_from_the_targets_top_in_any_direction(direction):
    top = np.array([0.0, 0.0, HEIGHT])
    near, far = (reach(tip=top + np.multiply(direction, d)) for d in (0.0399, 0.0401))
    assert near.success and near.distance == pytest.approx(0.0399)
    assert not far.success and far.reason == "the tip is 0.040 m away, more than 0.04 m"


def test_a_tip_that_is_nearer_to_another_object_has_not_reached_the_target():
    assert reach(tip=(0.03, 0, HEIGHT)).success
    verdict = reach(tip=(0.03, 0, HEIGHT), second=(0.05, 0))
    assert not verdict.success
    assert verdict.reason == "the tip is nearer to the blue cube"


def test_a_push_succeeds_up_to_5_cm_between_the_centres():
    assert push(first=(0.1501, 0)).success
    verdict = push(first=(0.1499, 0))
    assert not verdict.success
    assert verdict.reason == "the objects are 0.050 m apart, more than 0.05 m"


def test_where_the_tip_is_does_not_matter_to_a_push():
    assert push(first=(0.16, 0), tip=(-0.2, -0.2, 0.2)).success


class Towards:
    """Goes to the top of the object of this number."""

    def __init__(self, env, number):
        self._env, self._number = env, number

    def reset(self, session=None):
        pass

    def infer(self, observation):
        table = self._env.table_state()
        motion = table.tops[self._number] + (0, 0, 0.01) - table.tip
        if np.linalg.norm(motion[:2]) > 0.02:
            motion[2] = 0.07 - table.tip[2]
        action = np.zeros((1, TABLETOP_ACTIONS.dimension), np.float32)
        action[0, 0] = float(np.linalg.norm(motion) > 0.005)
        action[0, 1:4] = np.clip(motion, -0.05, 0.05)
        return {"actions": action}


@pytest.mark.parametrize("seed", range(5))
def test_under_a_swapped_instruction_only_the_first_object_counts(seed):
    """A policy that does not listen succeeds; one that goes to what is named fails."""
    env = TabletopEnv("reach", render=RenderSettings(height=2, width=2))
    deaf = outcome(env, list(play(env, ScriptedExpert(env), seed, swap_instruction=True)))
    named = [i for i, o in enumerate(env.scene.objects) if o.name in deaf.instruction]
    assert len(named) == 1 and named[0] != env.scene.roles["target"]
    listening = outcome(env, list(play(env, Towards(env, named[0]), seed, swap_instruction=True)))
    assert (deaf.success, listening.success) == (True, False)
    assert listening.terminated
    plain = outcome(env, list(play(env, Towards(env, env.scene.roles["target"]), seed)))
    assert plain.success
