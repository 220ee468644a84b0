"""The cached steps of a checkpoint's tasks, to be answered."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from rt2_jax.actions.identity import differences
from rt2_jax.data.cache import StepCache
from rt2_jax.data.examples import TaskExamples
from rt2_jax.data.manifest import MixtureTask
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.training.description import RunDescription


def open_cached_tasks(
    description: RunDescription,
    cache_dir: str | pathlib.Path,
    tasks: Sequence[str] = (),
    split: str = "validation",
) -> list[tuple[MixtureTask, StepCache]]:
    """The caches of a split of a checkpoint's tasks, in the order of its mixture.

    Args:
      description: the checkpoint's.
      cache_dir: where the caches are.
      tasks: of the checkpoint's mixture, or its name; () for all.
      split: that is cached there.

    Raises:
      KeyError: the checkpoint was not trained on such a task.
      FileNotFoundError: a split is not cached; the message has the command.
      ValueError: a cache of other actions, views or prompts than the checkpoint's, or an empty one.
    """
    manifest = description.manifest
    known = [entry.info.name for entry in manifest.tasks]
    wanted = [name for name in tasks if name in known or name != manifest.mixture]
    for name in wanted:
        if name not in known:
            raise KeyError(
                f"no task {name!r} in the checkpoint's mixture {manifest.mixture!r}; its tasks: "
                f"{', '.join(known)}"
            )
    found = []
    for entry in manifest.tasks:
        if len(wanted) < max(len(tasks), 1) or entry.info.name in wanted:
            cache = StepCache(cache_dir, entry.info.name, split)
            _check_cache(cache, entry.info)
            found.append((entry, cache))
    return found


def task_examples(
    description: RunDescription, entry: MixtureTask, cache: StepCache
) -> TaskExamples:
    """The examples of a task's cache, as the checkpoint's model reads them."""
    number = description.manifest.tasks.index(entry)
    if entry.info.robot is None:
        return TaskExamples(number, cache, description.model_inputs, None)
    return TaskExamples(
        number,
        cache,
        description.model_inputs,
        description.action_tokens(entry.info),
        description.state_text(entry.info),
    )


def _check_cache(cache: StepCache, info: TaskInfo) -> None:
    held = cache.info.task
    if info.robot is not None and held.robot is not None:
        where = f"{cache.directory}: the checkpoint's task {info.name!r} and this cache"
        info.robot.action_space.check_same(held.robot.action_space, where)
    if held != info:
        lines = differences(info.to_json(), held.to_json())
        raise ValueError(
            f"{cache.directory} is not of the task that the checkpoint was trained on (checkpoint, "
            f"cache): {'; '.join(lines)}; cache the task as it was registered then"
        )
    if not len(cache):
        raise ValueError(f"{cache.directory}: the split has no steps")
