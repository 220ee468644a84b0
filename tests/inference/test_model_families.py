"""Every kind of model is trained, saved and served by the same programs."""

import numpy as np
import pytest

from rt2_jax.data.examples import TaskExamples
from rt2_jax.data.manifest import open_caches
from rt2_jax.inference.engine import PolicyEngine, Question


@pytest.fixture(scope="module")
def served(small, caches, learn):
    """A decoder-only model that knows the training examples by heart, read from its checkpoint."""
    description = small.describe(caches, plan=4, family="decoder_only")
    return PolicyEngine.from_checkpoint(learn(description), (4,)), description


@pytest.mark.slow
def test_a_decoder_only_model_answers_what_it_learned_by_heart(served, caches):
    engine, description = served
    inputs = description.model_inputs
    robot, web = open_caches(description.manifest, caches)
    task = engine.robot_task()
    examples = TaskExamples(0, robot, inputs, engine.action_tokens(task))
    rows = [examples.example(i) for i in range(len(robot))]
    plans, tokens, scores = engine.decode_actions([inputs.observed(row) for row in rows], task)
    start = description.inputs.answer_start + description.inputs.plan_length
    wanted = np.stack([row["decoder_target_tokens"][start : start + 8] for row in rows])
    assert (tokens == wanted).mean() > 0.9
    assert plans == [robot[i].target for i in range(len(robot))]
    assert np.all(np.exp(scores) > 0.3)
    questions = TaskExamples(1, web, inputs, None)
    rows = [inputs.observed(questions.example(i)) for i in range(len(web))]
    found = [answer.split() for answer in engine.decode_text(rows)]
    assert found == [web[i].target.split() for i in range(len(web))]


@pytest.mark.slow
def test_rt1_answers_what_it_learned_by_heart_from_robots_alone(small, caches, learn):
    description = small.describe(caches, family="rt1")
    assert [task.info.name for task in description.manifest.tasks] == ["arm_pick"]
    engine = PolicyEngine.from_checkpoint(learn(description), (4,))
    inputs, task = description.model_inputs, engine.robot_task()
    [cache] = open_caches(description.manifest, caches)
    examples = TaskExamples(0, cache, inputs, engine.action_tokens(task))
    rows = [examples.example(i) for i in range(len(cache))]
    assert set(rows[0]["decoder_loss_weights"]) == {1.0}  # actions end without a token
    plans, tokens, scores = engine.decode_actions([inputs.observed(row) for row in rows], task)
    wanted = np.stack([row["decoder_target_tokens"] for row in rows])
    assert (tokens == wanted).mean() > 0.9
    assert set(plans) == {""} and np.all(np.isfinite(scores))
    with pytest.raises(ValueError, match="writes actions only; it cannot answer"):
        engine.answer([Question("Q: what is this? A:")])


@pytest.mark.slow
def test_its_served_features_are_those_of_training(served, caches):
    engine, description = served
    cache = open_caches(description.manifest, caches)[0]
    task = engine.robot_task()
    examples = TaskExamples(0, cache, description.model_inputs, engine.action_tokens(task))
    row, step = examples.example(0), cache[0]
    images = {(view, 0): image for view, image in zip(task.views, step.images, strict=True)}
    found = description.model_inputs.observe(images, task.fill_prompt(step.text), robot=True)
    for name, value in description.model_inputs.observed(row).items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert {name: value.shape for name, value in row.items() if name != "source_id"} == {
        name: shape[1:] for name, shape in description.inputs.batch_shapes(1).items()
    }
