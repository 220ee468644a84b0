"""Any robot task as an RLDS directory, with what its numbers mean beside the episodes."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import seqio
import tensorflow_datasets as tfds

from rt2_jax.data.registration import step_format
from rt2_jax.data.rlds import image_key
from rt2_jax.data.rlds_folder import rlds_folder, write_rlds_folder
from rt2_jax.data.step import TaskStep
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.task_info import RobotInfo, TaskInfo

_LARGEST = (1 << 31) - (1 << 24)  # protobuf's limit on an example, less room for what is no picture


def export_rlds(
    task: seqio.Task,
    root: str | pathlib.Path,
    *,
    shard_episodes: int = 100,
    report: Callable[[int], None] = lambda steps: None,
) -> pathlib.Path:
    """Writes all splits of a robot task as `root/<task>/1.0.0`, which `rlds_source` reads.

    Pictures are those of the task's steps, byte for byte. In memory is one episode, encoded. While
    episodes are missing the folder's name ends in `.incomplete`; a run that was interrupted begins
    again.

    Args:
      task: registered with `robot_task`.
      root: folder of all data sets.
      shard_episodes: to a file.
      report: called with the number of steps after each.

    Returns:
      The folder.

    Raises:
      FileNotFoundError: the task's data are not on this disk.
      FileExistsError: the folder is there already.
      OSError: another process is writing it.
      ValueError: no robot task, a name that tensorflow-datasets does not take, a step that cannot
        be used, or an episode that is too large for an example.
    """
    info = step_format(task).info
    if info.robot is None:
        raise ValueError(f"task {info.name!r} is a web task; RLDS holds episodes of robots")
    final = rlds_folder(root, info.name, f"task {info.name!r}")
    count, robot = itertools.count(1), info.robot

    def episodes(split: str) -> Iterator[dict[str, Any]]:
        for steps in _episodes(read_steps(task, split), info, lambda: report(next(count))):
            yield _episode(steps, info, robot)

    write_rlds_folder(
        final,
        _features(info, robot),
        {split: episodes(split) for split in task.splits},
        metadata={"rt2_task": info.to_json()},
        description=f"{info.name}. What the numbers mean stands in metadata.json.\n"
        f"{robot.action_space.describe()}",
        shard_episodes=shard_episodes,
    )
    return final


def _features(info: TaskInfo, robot: RobotInfo) -> tfds.features.FeaturesDict:
    feature = tfds.features
    height, width = info.image_size or (None, None)
    observation: dict[str, Any] = {
        image_key(view): feature.Image(shape=(height, width, 3), doc=f"view {view!r}")
        for view in info.views
    }
    if robot.state_fields:
        observation["state"] = feature.Tensor(
            shape=(len(robot.state_fields),), dtype=np.float32, doc=", ".join(robot.state_fields)
        )
    space = robot.action_space
    steps = {
        "observation": observation,
        "action": feature.Tensor(shape=(space.dimension,), dtype=np.float32, doc=space.describe()),
        "language_instruction": feature.Text(doc="what to do"),
        "plan": feature.Text(doc="what to write before the action; empty where there is none"),
        "is_first": feature.Scalar(dtype=np.bool_),
        "is_last": feature.Scalar(dtype=np.bool_),
        "is_terminal": feature.Scalar(
            dtype=np.bool_, doc="last, and the action terminates where the space can say so"
        ),
    }
    return feature.FeaturesDict(
        {
            "steps": feature.Dataset(steps),
            "episode_metadata": {"episode_id": feature.Text(doc="of the source")},
        }
    )


def _episodes(
    steps: Iterator[TaskStep], info: TaskInfo, report: Callable[[], None]
) -> Iterator[list[TaskStep]]:
    """Checked steps, episode by episode."""
    for _, group in itertools.groupby(steps, key=lambda step: step.episode):
        episode, size = [], 0
        for step in group:
            step.check(info)
            size += sum(map(len, step.images))
            if size > _LARGEST:
                raise ValueError(
                    f"task {info.name!r}, episode {step.episode} ({step.episode_id!r}): its "
                    f"pictures up to step {step.step} take {size / 2**30:.2f} GiB, and RLDS keeps "
                    "an episode in one example of less than 2; register the task with smaller "
                    "pictures"
                )
            episode.append(step)
            report()
        yield episode


def _episode(steps: list[TaskStep], info: TaskInfo, robot: RobotInfo) -> dict[str, Any]:
    names = robot.action_space.names
    terminate = names.index("terminate") if "terminate" in names else None
    encoded = []
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        keys = map(image_key, info.views)
        observation: dict[str, Any] = dict(zip(keys, step.images, strict=True))
        if robot.state_fields:
            observation["state"] = step.state
        encoded.append(
            {
                "observation": observation,
                "action": step.action,
                "language_instruction": step.text,
                "plan": step.target,
                "is_first": index == 0,
                "is_last": last,
                "is_terminal": last and (terminate is None or step.action[terminate] == 0),
            }
        )
    return {"steps": encoded, "episode_metadata": {"episode_id": steps[0].episode_id}}
