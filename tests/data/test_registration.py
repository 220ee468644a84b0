"""Registration: tasks are SeqIO's own, and a step that is not one is refused by its field."""

import numpy as np
import pytest
import seqio

from rt2_jax.data.registration import step_format
from rt2_jax.data.resolve import find_tasks
from rt2_jax.data.task_info import RobotInfo, TaskInfo

from .conftest import ARM, robot_steps


def test_a_robot_task_is_an_ordinary_seqio_task_of_steps(robot):
    robot()
    task = seqio.TaskRegistry.get("arm_pick")
    steps = list(task.get_dataset(split="train", shuffle=False).as_numpy_iterator())
    assert len(steps) == 9
    np.testing.assert_array_equal(steps[1]["action"], robot_steps()[1]["action"])
    assert steps[1]["text"] == b"pick object 0" and steps[1]["target"] == b""


def test_robot_and_web_tasks_mix_in_seqio(robot, web):
    robot()
    web()
    seqio.MixtureRegistry.add("both", [("arm_pick", 1.0), ("cups", 3.0)])
    dataset = seqio.get_mixture_or_task("both").get_dataset(
        sequence_length=None, split="train", shuffle=False, num_epochs=None, seed=0
    )
    steps = dataset.take(50).as_numpy_iterator()
    kinds = {(len(step["action"]), bool(step["target"])) for step in steps}
    assert kinds == {(8, False), (0, True)}


def test_a_task_declares_what_its_numbers_mean(robot):
    info = step_format(robot()).info
    assert info.robot == RobotInfo("arm", ARM, ("x", "y"))
    assert info.robot.needs_statistics
    assert info.fill_prompt("tidy {up}") == "Q: what action should the robot take to tidy {up}? A:"
    assert TaskInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda step: step.pop("text"), "task 'arm_pick': field 'text' of a step is missing"),
        (lambda step: step.update(grip=step["state"]), "field 'grip' of a step is unknown"),
        (
            lambda step: step.update(images=step["text"]),
            "field 'images' of a step is string of rank 0, expected string of rank 1",
        ),
        (
            lambda step: step.update(state=step["episode"]),
            "field 'state' of a step is int64 of rank 0, expected float32 of rank 1",
        ),
    ],
)
def test_a_field_that_is_no_step_field_is_refused_by_name(robot, change, message):
    def changed(dataset):
        def apply(step):
            change(step := dict(step))
            return step

        return dataset.map(apply)

    task = robot(preprocessors=[changed])
    with pytest.raises(ValueError, match=message):
        task.preprocess_precache(task.source.get_dataset("train", shuffle=False))


def test_a_task_that_declares_nothing_is_refused_by_name(registry, source):
    task = seqio.TaskRegistry.add("bare", source=source(robot_steps()), output_features={})
    with pytest.raises(ValueError, match="task 'bare' declares nothing about its steps"):
        step_format(task)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": ["front", "front"]}, "found views .*, expected each once"),
        ({"views": []}, "needs one view or more"),
        ({"prompt": "move"}, "prompt 'move' has no {text}"),
    ],
)
def test_a_wrong_declaration_is_refused_at_registration(robot, changes, message):
    with pytest.raises(ValueError, match=f"task 'arm_pick': .*{message}"):
        robot(**changes)


def test_a_web_task_has_one_picture_at_most():
    with pytest.raises(ValueError, match="a web task has at most one picture"):
        TaskInfo("cups", "{text}", ("a", "b"))


def test_the_robot_share_of_a_mixture_is_its_rate(robot, web):
    for name in ("arm_pick", "arm_push"):
        robot(name)
    web()
    seqio.MixtureRegistry.add("arms", ["arm_pick", "arm_push"], default_rate=1.0)
    seqio.MixtureRegistry.add("co", [("arms", 0.5), ("cups", 0.5)])
    shares = {task.name: share for task, share in find_tasks("co")}
    assert shares == {"arm_pick": 0.25, "arm_push": 0.25, "cups": 0.5}


def test_an_unknown_name_is_answered_with_the_nearest_ones(robot):
    robot()
    with pytest.raises(KeyError, match="no task or mixture 'arm_pik'.*did you mean arm_pick"):
        find_tasks("arm_pik")
    with pytest.raises(KeyError, match="rt2 data list shows them all"):
        find_tasks("zzzzzz")


def test_a_rate_of_zero_is_refused_with_the_task(robot, web):
    robot()
    web()
    seqio.MixtureRegistry.add("none", [("arm_pick", 0.0), ("cups", 1.0)])
    with pytest.raises(ValueError, match="mixture 'none', task 'arm_pick': its rate is 0.0"):
        find_tasks("none")
