"""All robots of a checkpoint: a policy each, shared where they act alike."""

import dataclasses

import pytest

from rt2_jax.inference.engine import PolicyEngine
from rt2_jax.inference.robots import robot_policies
from rt2_jax.serving.action_checks import Safety
from rt2_jax.serving.tasks import TaskTable


@pytest.fixture(scope="module")
def engine(untrained):
    return PolicyEngine.from_checkpoint(untrained, (1, 4))


def with_tasks(engine, **prompts):
    """The engine, with further robot tasks of these prompts."""
    manifest = engine.description.manifest
    first = manifest.tasks[0]
    more = [
        dataclasses.replace(first, info=dataclasses.replace(first.info, name=name, prompt=prompt))
        for name, prompt in prompts.items()
    ]
    manifest = dataclasses.replace(manifest, tasks=(*manifest.tasks, *more))
    description = dataclasses.replace(engine.description, manifest=manifest)
    return PolicyEngine(description, engine.weights)


def test_tasks_that_act_alike_share_a_policy_and_others_do_not(engine):
    prompt = engine.robot_task().prompt
    both = with_tasks(engine, arm_pull=prompt, arm_push="Robot: {text}")
    policies = robot_policies(both)
    assert list(policies) == ["arm_pick", "arm_pull", "arm_push"]
    assert policies["arm_pick"] is policies["arm_pull"] is not policies["arm_push"]
    assert policies["arm_push"].metadata["prompt"] == "Robot: {text}"
    assert list(robot_policies(both, "arm_push")) == ["arm_push"]
    with pytest.raises(KeyError, match="no robot task 'fly'"):
        robot_policies(both, "fly")


def test_a_server_of_all_tasks_asks_for_a_choice_only_where_there_is_one(engine):
    table = TaskTable(robot_policies(engine), Safety(), 4)
    assert table.choose({}).times.sizes == (1, 4), "the compiled sizes"
    assert table.metadata["task"] == "arm_pick" and "tasks" not in table.metadata
    both = TaskTable(robot_policies(with_tasks(engine, arm_push="Robot: {text}")), Safety(), 4)
    assert set(both.metadata["tasks"]) == {"arm_pick", "arm_push"}
    assert both.metadata["weights"] == table.metadata["weights"]
    with pytest.raises(ValueError, match="send 'task'"):
        both.choose({"embodiment": "arm"})
