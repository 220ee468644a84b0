"""Which robot task of a checkpoint is meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rt2_jax.data.task_info import TaskInfo
from rt2_jax.training.description import RunDescription


def choose_robot_task(
    description: RunDescription,
    checkpoint: str,
    name: str | None = None,
    embodiment: str | None = None,
) -> TaskInfo:
    """The task whose prompt, views and actions are meant.

    Args:
      description: of the checkpoint.
      checkpoint: what errors call it.
      name: of a robot task of the checkpoint's mixture. None where only one is possible, or
        where all that are left agree in prompt, views and actions.
      embodiment: leaves the tasks of this robot.

    Raises:
      KeyError: no such task. ValueError: none at all, or a choice has to be made.
    """
    tasks = description.robot_tasks
    if not tasks:
        raise ValueError(
            f"{checkpoint or 'checkpoint'}: trained on {description.manifest.mixture!r}, which has "
            "no robot: it answers questions, but it cannot act"
        )
    left = [
        task
        for task in tasks
        if name in (None, task.name)
        and task.robot is not None
        and embodiment in (None, task.robot.embodiment)
    ]
    if not left:
        raise KeyError(
            f"no robot task {name or ''!r} of embodiment {embodiment or 'any'!r}; the "
            f"checkpoint was trained on {_names(tasks)}"
        )
    first = left[0]
    if any(_acts_as(task) != _acts_as(first) for task in left):
        raise ValueError(
            "the checkpoint's robot tasks differ in prompt, views or actions; choose one of "
            f"{_names(left)}"
        )
    return first


def _acts_as(task: TaskInfo) -> tuple[Any, ...]:
    return task.prompt, task.views, task.image_size, task.robot


def _names(tasks: Sequence[TaskInfo]) -> str:
    return ", ".join(repr(task.name) for task in tasks)
