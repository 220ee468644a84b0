"""A plan in words before the action: written freely, while the action stays an action."""

import numpy as np
import pytest

from rt2_jax.actions.policy import Observation, check_policy_output
from rt2_jax.data.cache import StepCache
from rt2_jax.data.image import decode_image
from rt2_jax.evaluation.offline import evaluate_offline
from rt2_jax.inference.engine import PolicyEngine

PLAN_LENGTH = 6


@pytest.fixture(scope="module")
def engine(small, caches, learn):
    return PolicyEngine.from_checkpoint(learn(small.describe(caches, plan=PLAN_LENGTH)), (1, 12))


@pytest.fixture(scope="module")
def steps(caches):
    cache = StepCache(caches, "arm_pick", "train")
    return [cache[i] for i in range(len(cache))]


def observe(step):
    front, wrist = map(decode_image, step.images)
    return Observation(images={"front": front, "wrist": wrist}, instruction=step.text)


def test_plans_of_any_length_are_written_and_behind_each_the_action(engine, steps, small, caches):
    first = [step for step in steps if step.step == 0]  # without earlier frames
    assert {step.target for step in first} == set(small.PLANS)
    results = engine.act([observe(step) for step in first])
    assert [result["plan"] for result in results] == [step.target for step in first]
    for result in results:
        assert check_policy_output(small.ARM, result).shape == (1, 8)
    [report] = evaluate_offline(engine, caches, ["arm_pick"], split="train")
    assert report.policy.exact.successes == len(steps)


def test_an_untrained_plan_without_end_is_cut_and_an_action_follows(engine, small, caches):
    description = small.describe(caches, plan=PLAN_LENGTH)
    state, _ = small.make_state(description, caches)
    engine = PolicyEngine(description, state.params, (12,), compiled=engine.compiled)
    draw = np.random.default_rng(0)
    observations = [
        Observation(
            images={view: draw.integers(0, 256, (24, 32, 3), np.uint8) for view in engine_views},
            instruction=f"wave {seed}",
        )
        for seed, engine_views in enumerate([("front", "wrist")] * 8)
    ]
    for result in engine.act(observations):
        assert check_policy_output(small.ARM, result).shape == (1, 8)
        assert len(description.tokenizer.encode(result["plan"])) <= PLAN_LENGTH + 1


def test_batched_plans_are_those_of_single_observations(engine, steps):
    observations = [observe(step) for step in steps]
    for one, other in zip(
        engine.act(observations), [engine.act([each])[0] for each in observations], strict=True
    ):
        assert one["plan"] == other["plan"]
        np.testing.assert_array_equal(one["tokens"], other["tokens"])
