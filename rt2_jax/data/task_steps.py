"""A task's steps for tools: from its cache where there is one, else through SeqIO."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

import seqio

from rt2_jax.data.cache import INFO_FILE, StepCache, cache_directory
from rt2_jax.data.registration import step_format
from rt2_jax.data.step import TaskStep
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.task_info import TaskInfo


@dataclass(frozen=True)
class TaskSteps:
    """Where a task's steps come from.

    Attributes:
      info: what the task declares.
      split: of the task.
      cache: the finished cache, or None.
      source: what reads them otherwise.
    """

    info: TaskInfo
    split: str
    cache: StepCache | None
    source: seqio.Task

    def __iter__(self) -> Iterator[TaskStep]:
        if self.cache is not None:
            cache = self.cache
            return (cache[i] for i in range(len(cache)))
        return read_steps(self.source, self.split)

    def of_episodes(self, count: int | None) -> Iterator[TaskStep]:
        """The steps of the first episodes; None for all."""
        return itertools.takewhile(lambda step: count is None or step.episode < count, iter(self))


def open_steps(task: seqio.Task, split: str, root: str | pathlib.Path | None) -> TaskSteps:
    """Finds a task's steps.

    Args:
      task: registered with `robot_task` or `web_task`.
      split: of the task.
      root: folder of all caches, or None to read through SeqIO.

    Raises:
      ValueError: no such split, or a cache that is damaged or of an older declaration.
    """
    if split not in task.splits:
        raise ValueError(f"task {task.name!r} has no split {split!r}; it has {list(task.splits)}")
    info = step_format(task).info
    cache = None
    if root is not None:
        folder = cache_directory(pathlib.Path(root), task.name, split)
        if (folder / INFO_FILE).is_file():
            cache = StepCache(root, task.name, split)
            if cache.info.task != info:
                raise ValueError(
                    f"{folder} was cached before task {task.name!r} changed: delete it and cache "
                    "the task again"
                )
    return TaskSteps(info, split, cache, task)
