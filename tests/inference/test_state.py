"""The robot's state before its prompt: the same text in training and serving, never left out."""

import dataclasses

import numpy as np
import pytest

from rt2_jax.actions.policy import Observation
from rt2_jax.data.cache import StepCache
from rt2_jax.data.examples import TaskExamples
from rt2_jax.data.image import decode_image
from rt2_jax.inference.engine import PolicyEngine
from rt2_jax.serving.requests import Schema


@pytest.fixture(scope="module")
def description(small, caches):
    return small.describe(caches, state=("y",))


@pytest.fixture(scope="module")
def engine(small, caches, description, tmp_path_factory):
    state, _ = small.make_state(description, caches)
    folder = tmp_path_factory.mktemp("state")
    return PolicyEngine.from_checkpoint(small.write_checkpoint(folder, description, state), (1, 2))


def observe(step, state):
    images = dict(zip(("front", "wrist"), map(decode_image, step.images), strict=True))
    return Observation(images, step.text, state)


def test_an_observation_is_prompted_as_its_cached_step_in_training(engine, caches):
    cache, task = StepCache(caches, "arm_pick", "train"), engine.robot_task()
    description = engine.description
    examples = TaskExamples(
        0,
        cache,
        description.model_inputs,
        engine.action_tokens(task),
        description.state_text(task),
    )
    prompts = set()
    for index in range(3):
        step = cache[index]
        images = {(view, 0): image for view, image in observe(step, None).images.items()}
        served = engine.observe(task, images, step.text, step.state)["encoder_input_tokens"]
        trained = examples.example(index)["encoder_input_tokens"]
        np.testing.assert_array_equal(served, trained)
        prompts.add(tuple(served))
    assert len(prompts) == 3, "the state of a step is in its prompt"


def test_a_state_that_is_read_is_no_unused_input_and_must_be_there(engine, caches):
    step = StepCache(caches, "arm_pick", "train")[0]
    [answer] = engine.act([observe(step, step.state)])
    assert answer["unused"] == () and answer["state_outside"] == ()
    [answer] = engine.act([observe(step, np.array([0.1, 0.7], np.float32))])
    assert answer["state_outside"] == ("y",)
    with pytest.raises(ValueError, match="state 'y' is 600, but in training it was 0 to 0.6"):
        engine.act([observe(step, np.array([0.1, 600.0], np.float32))])
    with pytest.raises(KeyError, match=r"no state, but the model reads \['y'\].*\['x', 'y'\]"):
        engine.act([observe(step, None)])
    with pytest.raises(ValueError, match=r"state has shape \[3\], expected the 2 numbers"):
        engine.act([observe(step, np.zeros(3, np.float32))])


def test_a_server_asks_for_the_state_before_the_model_does(engine, caches):
    assert engine.metadata["state_fields"] == ["x", "y"]
    assert engine.metadata["state_read"] == ["y"]
    np.testing.assert_allclose(engine.metadata["state_ranges"]["y"], [0.0, 0.6], atol=1e-6)
    schema = Schema(engine.metadata)
    step = StepCache(caches, "arm_pick", "train")[0]
    frame = {"images": observe(step, None).images, "prompt": "go"}
    assert schema.read({**frame, "state": [0.1, 0.2]}, "s").observation.state.tolist() == [
        np.float32(0.1),
        np.float32(0.2),
    ]
    for wrong, found in (
        (frame, "no state"),
        ({**frame, "state": [1.0]}, r"a state of shape \[1\]"),
    ):
        with pytest.raises(ValueError, match=f"found {found}, .* the 2 numbers .*'x', 'y'"):
            schema.read(wrong, "s")


def test_examples_are_never_made_without_the_state_that_is_read(engine, caches):
    cache, task = StepCache(caches, "arm_pick", "train"), engine.robot_task()
    with pytest.raises(
        ValueError, match=r"'arm_pick'.*reads the state \['y'\] in 256 bins.*with \[\] in"
    ):
        TaskExamples(0, cache, engine.description.model_inputs, engine.action_tokens(task))


def test_a_state_that_a_robot_does_not_have_is_refused_with_the_description(description):
    inputs = dataclasses.replace(description.inputs, state_fields=("elbow",))
    with pytest.raises(KeyError, match=r"no numbers \['elbow'\]; it has \['x', 'y'\]"):
        dataclasses.replace(description, inputs=inputs)
