"""`rt2 serve` in a process of its own gives the tokens that offline evaluation decodes."""

import pathlib
import re
import runpy
import subprocess
import sys
import types

import numpy as np
import pytest

from rt2_jax.actions.policy import Observation
from rt2_jax.client import RemotePolicy
from rt2_jax.data.cache import StepCache
from rt2_jax.data.examples import TaskExamples
from rt2_jax.data.image import decode_image
from rt2_jax.inference.engine import PolicyEngine

SMALL_POLICY = pathlib.Path(__file__).parents[1] / "inference" / "small_policy.py"
EPISODES = 67  # of three steps


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """The folder of the caches, and a checkpoint that plans and that knows the training split."""
    small = types.SimpleNamespace(**runpy.run_path(str(SMALL_POLICY)))
    caches = tmp_path_factory.mktemp("caches")
    small.write_caches(caches, held_out=EPISODES)
    description = small.describe(caches, plan=6)
    state, batch = small.make_state(description, caches)
    params, _ = small.overfit(description, state.params, batch)
    directory = tmp_path_factory.mktemp("trained")
    return caches, small.write_checkpoint(directory, description, state.replace(params=params))


@pytest.fixture(scope="module")
def url(policy):
    """Where `rt2 serve` answers."""
    command = [
        sys.executable,
        "-m",
        "rt2_jax.cli.main",
        "serve",
        str(policy[1]),
        "--port=0",
        "--no-cache",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if found := re.search(r"ws://\S+", line):
                    yield found[0].rstrip(".,;")
                    break
            else:
                pytest.fail(f"rt2 serve ended with status {process.wait()}")
        finally:
            process.terminate()


def test_served_answers_are_the_tokens_of_offline_evaluation_on_200_observations(policy, url):
    caches, checkpoint = policy
    engine = PolicyEngine.from_checkpoint(checkpoint, (32,))
    task = engine.robot_task()
    cache = StepCache(caches, task.name, "validation")
    examples = TaskExamples(0, cache, engine.description.model_inputs, engine.action_tokens(task))
    assert len(cache) > 200
    rows = [examples.example(i) for i in range(len(cache))]
    plans, tokens, scores = engine.decode_actions(rows, task)
    with RemotePolicy(url) as robot:
        for number in range(len(cache)):
            step = cache[number]
            if step.step == 0:
                robot.reset(step.episode_id)
            images = dict(zip(task.views, map(decode_image, step.images), strict=True))
            answer = robot.infer(
                Observation(images=images, instruction=step.text, session=step.episode_id)
            )
            np.testing.assert_array_equal(answer["tokens"], tokens[number])
            assert answer["plan"] == plans[number]
            assert answer["score"] == pytest.approx(scores[number], abs=1e-3)
    assert len({tuple(row) for row in tokens.tolist()}) > 20
