"""An episode is a function of its scene and its policy, however many are played at once."""

import os
import signal
import time

import numpy as np
import pytest

from rt2_jax.evaluation.policy_sources import LocalPolicy, NamedPolicy, RemotePolicySource
from rt2_jax.evaluation.rollouts import play_scenes
from rt2_jax.evaluation.suite import Suite
from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.policies import make_policy
from rt2_jax.sim.render import RenderSettings
from rt2_jax.sim.rollout import outcome, play
from rt2_jax.sim.simulation import TABLETOP_ACTIONS

BLIND = RenderSettings(height=2, width=2)
SUITE = Suite(episodes=3, render=BLIND)


def outcomes(source, parallel, suite=SUITE):
    """Scene -> how it ended, with the actions that were executed."""
    results = play_scenes(suite, source, suite.scenes, parallel=parallel)
    return {result.scene: (result.outcome, result.actions) for result in results}


class Sighted:
    """Decides by the pictures, and remembers how often each session has asked."""

    def __init__(self):
        self.batches, self.asked = [], {}

    def reset(self, session=None):
        self.asked[session] = 0

    def infer(self, observation):
        (answer,) = self.infer_batch([observation])
        return answer

    def infer_batch(self, observations):
        self.batches.append(len(observations))
        return [{"actions": self._act(observation)} for observation in observations]

    def _act(self, observation):
        assert observation.step == self.asked[observation.session]
        self.asked[observation.session] += 1
        actions = np.zeros((1, 8), np.float32)
        actions[0, 0] = self.asked[observation.session] < 6
        actions[0, 1:4] = observation.images["front"].mean((0, 1)) / 255 - 0.5
        return actions


@pytest.mark.parametrize("name", ["expert", "random"])
def test_the_numbers_are_those_of_the_worlds_own_rollout(name):
    expected = {}
    for skill in SUITE.skills:
        env = TabletopEnv(skill, render=BLIND)
        for seed in range(SUITE.seed, SUITE.seed + SUITE.episodes):
            steps = list(play(env, make_policy(name, env), seed))
            actions = tuple(tuple(map(float, step.action)) for step in steps)
            expected[skill, seed] = outcome(env, steps), actions
    assert outcomes(NamedPolicy(name), parallel=2) == expected


def test_the_same_seeds_give_the_same_episodes_whatever_is_played_at_once():
    alone = outcomes(LocalPolicy(Sighted(), "sighted"), parallel=1)
    assert set(alone) == set(SUITE.scenes)
    assert len({actions for _, actions in alone.values()}) == len(alone)
    for parallel in (2, 5):
        assert outcomes(LocalPolicy(Sighted(), "sighted"), parallel=parallel) == alone


def test_sessions_that_wait_together_are_answered_together():
    class Slow(Sighted):
        def infer_batch(self, observations):
            time.sleep(0.03)  # longer than a step of the world: the others come to wait
            return super().infer_batch(observations)

    policy = Slow()
    results = list(play_scenes(SUITE, LocalPolicy(policy, "sighted"), SUITE.scenes, parallel=3))
    assert sum(policy.batches) == sum(result.steps for result in results)
    assert 1 < max(policy.batches) <= 3
    assert len(policy.asked) == len(SUITE.scenes)


def test_a_result_says_what_happened():
    class Wild(Sighted):
        def _act(self, observation):
            actions = np.zeros((1, 8), np.float32)
            actions[0, :2] = 1.0, 9.0
            return actions

    suite = Suite(skills=("reach",), episodes=1, render=BLIND)
    (result,) = play_scenes(suite, LocalPolicy(Wild(), "wild"), suite.scenes, parallel=1)
    assert (result.ended, result.steps, result.success) == ("out of steps", 40, False)
    assert result.clipped == {"position_delta_x": 40}
    assert sum(result.limited.values()) > 0 and result.reason.startswith("the tip is ")
    assert len(result.latency_ms) == len(result.actions) == 40
    assert result.wall_s > sum(result.latency_ms) / 1000 > 0


def test_a_policy_is_told_another_objects_name_and_judged_on_the_original():
    swapped = Suite(skills=("reach",), episodes=4, instruction="swapped", render=BLIND)
    (told, plain) = (
        {r.seed: r for r in play_scenes(s, NamedPolicy("expert"), s.scenes, parallel=2)}
        for s in (swapped, Suite(skills=("reach",), episodes=4, render=BLIND))
    )
    # The scripted expert knows the true target and does not listen.
    assert all(result.success for result in told.values())
    env = TabletopEnv("reach", render=BLIND)
    for seed in told:
        env.reset(seed=seed)
        assert told[seed].instruction == env.scene.swapped_instruction
        assert plain[seed].instruction == env.scene.instruction != told[seed].instruction


def test_an_answer_that_is_no_action_stops_the_evaluation_by_name():
    class Broken(Sighted):
        def _act(self, observation):
            return np.full((1, 8), np.nan, np.float32)

    with pytest.raises(ValueError, match="reach-10000000, step 0: actions.* nan"):
        list(play_scenes(SUITE, LocalPolicy(Broken(), "x"), SUITE.scenes[:1], parallel=1))


def test_a_killed_process_is_reported_with_what_to_do():
    class Murderous(Sighted):
        def infer_batch(self, observations):
            import multiprocessing

            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
            return super().infer_batch(observations)

    message = "the process that played reach-10000000 was killed.* fewer environments"
    with pytest.raises(ChildProcessError, match=message):
        list(play_scenes(SUITE, LocalPolicy(Murderous(), "x"), SUITE.scenes[:1], parallel=1))


def test_nothing_is_left_running_when_a_reader_stops():
    import multiprocessing

    before = set(multiprocessing.active_children())
    episodes = play_scenes(SUITE, NamedPolicy("random"), SUITE.scenes, parallel=2)
    next(episodes)
    assert set(multiprocessing.active_children()) > before
    episodes.close()
    assert set(multiprocessing.active_children()) == before


def test_a_policy_by_name_must_exist():
    with pytest.raises(ValueError, match="found 'hero', expected one of expert, .*, nothing"):
        NamedPolicy("hero")


def test_at_least_one_environment_plays():
    with pytest.raises(ValueError, match="parallel: found 0, expected 1 or more"):
        list(play_scenes(SUITE, NamedPolicy("expert"), SUITE.scenes, parallel=0))


def test_a_server_of_another_robot_is_refused_before_anything_is_played():
    other = {**TABLETOP_ACTIONS.to_json(), "name": "bridge"}
    with pytest.raises(ValueError, match=r"ws://x: its actions are of another space .* built-in"):
        RemotePolicySource("ws://x", connect=dict, metadata={"action_space": other})
    same = {"action_space": TABLETOP_ACTIONS.to_json()}
    assert RemotePolicySource("ws://x", connect=dict, metadata=same).name == "ws://x"
