"""The table-top policy that comes along: what it can do, it can do by its weights."""

import dataclasses

import jax
import numpy as np
import pytest

from rt2_jax.evaluation import LocalPolicy, Suite, evaluate
from rt2_jax.inference.engine import EnginePolicy, PolicyEngine
from rt2_jax.models.model import VisionLanguageModel
from rt2_jax.sim.render import RenderSettings

NAME = "pretrained:rt2_tabletop_tiny"
EPISODES = 20
SKILLS = ("reach", "push")


@pytest.fixture(scope="module")
def engine():
    return PolicyEngine.from_checkpoint(NAME, (8,))


def untrained(engine):
    """The same checkpoint with weights as they are before any training."""
    description = engine.description
    example = description.example_input
    length = description.inputs.decoder_length
    shapes = {name: (1, *value.shape) for name, value in example.items()}
    shapes |= {
        f"decoder_{name}": (1, length) for name in ("input_tokens", "target_tokens", "loss_weights")
    }
    model = VisionLanguageModel(description.model)
    params = model.get_initial_variables(jax.random.key(0), shapes)["params"]
    return PolicyEngine(description, params, (8,))


def successes(engine, **changes):
    suite = Suite(skills=SKILLS, episodes=EPISODES, render=RenderSettings("ray", 64, 64))
    policy = LocalPolicy(EnginePolicy(engine), "policy")
    results = evaluate(dataclasses.replace(suite, **changes), policy, parallel=8).results
    return [sum(result.success for result in results if result.skill == skill) for skill in SKILLS]


@pytest.mark.slow
def test_it_does_what_it_is_told_with_the_thing_that_it_is_told(engine):
    # docs/measurements.md has the rates of hundreds: of twenty, 18 and 7 are expected.
    reached, pushed = successes(engine)
    assert reached >= 14 and pushed >= 2
    # Less than one.
    assert max(successes(engine, instruction="swapped")) <= 4


@pytest.mark.slow
def test_with_untrained_weights_the_success_collapses(engine):
    assert max(successes(untrained(engine))) <= 1


def test_it_says_what_it_reads_and_what_its_actions_can_be(engine):
    assert engine.metadata["state_read"] == ["tip_x", "tip_y", "tip_z"]
    bounds = engine.metadata["action_bounds"]
    assert np.allclose(bounds["high"][1:4], 0.05)
