"""A robot task as RLDS: tensorflow-datasets reads it, and its steps are the task's."""

import dataclasses
import fcntl
import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.cli.main import main
from rt2_jax.data import rlds_export
from rt2_jax.data.lerobot_steps import lerobot_task
from rt2_jax.data.registration import robot_task
from rt2_jax.data.rlds_export import export_rlds
from rt2_jax.data.rlds_reader import rlds_source, steps_of_episodes
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.task_info import TaskInfo

from .conftest import ARM, robot_steps
from .lerobot_sets import write_v2
from .test_lerobot import ARMS, LENGTHS, STEPS

SPLITS = {"train": ":2", "validation": "2:"}


@pytest.fixture
def arms(built_in_tasks, registry, tmp_path, monkeypatch):
    """The task of a LeRobot data set with 14 numbers and two cameras."""
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    write_v2(tmp_path / "set", LENGTHS)
    steps = dataclasses.replace(STEPS, image_size=(32, 48), image_format="jpeg")
    return lerobot_task("arms", steps, SPLITS, embodiment="two_arms")


def to_step(step):
    seen = step["observation"]
    return {
        "images": tf.stack([seen["high_image"], seen["wrist_image"]]),
        "text": step["language_instruction"],
        "target": step["plan"],
        "action": step["action"],
        "state": seen["state"],
    }


def test_rlds_gives_the_steps_of_the_lerobot_data_set_bit_for_bit(arms, tmp_path):
    reports = []
    path = export_rlds(arms, tmp_path, shard_episodes=1, report=reports.append)
    assert path == tmp_path / "arms/1.0.0" and reports == list(range(1, 17))
    again = robot_task(
        "again",
        rlds_source("arms/1.0.0", {split: split for split in SPLITS}),
        embodiment="two_arms",
        action_space=ARMS,
        views=["high", "wrist"],
        state_fields=STEPS.state_fields,
        image_size=(32, 48),
        read_from="arms/1.0.0",
        preprocessors=[steps_of_episodes(to_step, episode_id=lambda e: e["episode_id"])],
    )
    for split, count in (("train", 12), ("validation", 4)):
        expected = [step.pack() for step in read_steps(arms, split)]
        assert len(expected) == count
        assert [step.pack() for step in read_steps(again, split)] == expected


def test_tensorflow_datasets_reads_it_and_finds_what_the_numbers_mean(arms, tmp_path):
    builder = tfds.builder_from_directory(export_rlds(arms, tmp_path, shard_episodes=1))
    assert builder.info.splits["train"].shard_lengths == [1, 1]
    assert TaskInfo.from_json(builder.info.metadata["rt2_task"]).robot.action_space == ARMS
    first = next(iter(tfds.as_numpy(builder.as_dataset(split="train"))))
    assert first["episode_metadata"]["episode_id"] == b"episode_000000"
    steps = list(first["steps"])
    assert steps[0]["observation"]["wrist_image"].shape == (32, 48, 3)
    assert [bool(step["is_first"]) for step in steps] == [True, *[False] * 4]
    for flag in ("is_last", "is_terminal"):
        assert [bool(step[flag]) for step in steps] == [*[False] * 4, True]


def test_an_episode_that_does_not_terminate_is_not_terminal(robot, tmp_path):
    steps = robot_steps()
    for step in steps:
        step["action"][0] = 1
    path = export_rlds(robot(steps=steps), tmp_path)
    for episode in tfds.as_numpy(tfds.builder_from_directory(path).as_dataset(split="train")):
        last = list(episode["steps"])[-1]
        assert last["is_last"] and not last["is_terminal"]


def test_the_command_writes_it_and_leaves_a_finished_one_alone(arms, tmp_path, capsys):
    assert main(["data", "to-rlds", "arms", str(tmp_path / "out")]) == 0
    path = tmp_path / "out/arms/1.0.0"
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
    assert [file.name for file in path.parent.iterdir()] == ["1.0.0"]
    before = {file: file.read_bytes() for file in path.iterdir()}
    assert main(["data", "to-rlds", "arms", str(tmp_path / "out")]) == 2
    assert "is there already; delete it to write it again" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in path.iterdir()} == before


def test_an_interrupted_one_is_no_data_set_and_is_begun_again(robot, tmp_path):
    steps = robot_steps()
    steps[5]["action"] = np.full_like(steps[5]["action"], np.nan)
    with pytest.raises(ValueError, match="task 'arm_pick', episode 1 .'demo-1'., step 2: action"):
        export_rlds(robot(steps=steps), tmp_path, shard_episodes=1)
    assert not (tmp_path / "arm_pick/1.0.0").exists()
    task = robot("arm_place")
    path = export_rlds(task, tmp_path)
    path.rename(path.with_name("1.0.0.incomplete"))  # as if killed just before the end
    assert export_rlds(task, tmp_path) == path
    assert tfds.builder_from_directory(path).info.splits["train"].num_examples == 3


def test_what_cannot_be_rlds_is_refused(robot, web, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="task 'cups' is a web task"):
        export_rlds(web(), tmp_path)
    with pytest.raises(ValueError, match="task 'Arm.pick': tensorflow-datasets takes names"):
        export_rlds(robot("Arm.pick"), tmp_path)
    task = robot()
    monkeypatch.setattr(rlds_export, "_LARGEST", 1000)
    with pytest.raises(ValueError, match="'arm_pick', episode 0 .'demo-0'.: its pictures up to"):
        export_rlds(task, tmp_path)
    lock = tmp_path / "arm_pick/1.0.0.lock"
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another process is writing .*arm_pick/1.0.0"):
            export_rlds(task, tmp_path)


def test_metadata_hold_the_declared_action_space(robot, tmp_path):
    metadata = json.loads((export_rlds(robot(), tmp_path) / "metadata.json").read_text())
    assert metadata["rt2_task"]["robot"]["action_space"] == ARM.to_json()
