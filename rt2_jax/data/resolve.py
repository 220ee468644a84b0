"""Finds registered tasks and mixtures, and resolves a mixture into its manifest."""

from __future__ import annotations

import difflib
import json
import pathlib

import seqio

from rt2_jax.actions.identity import differences
from rt2_jax.data.cache import StepCache
from rt2_jax.data.cache_shard import write_atomically
from rt2_jax.data.manifest import (
    Manifest,
    MixtureTask,
    manifest_path,
    mixture_state_ranges,
    mixture_statistics,
)
from rt2_jax.data.registration import step_format


def find_tasks(name: str) -> list[tuple[seqio.Task, float]]:
    """The tasks of a mixture with their shares, which sum to 1; or a task with share 1.

    Raises:
      KeyError: neither a task nor a mixture; the message suggests names.
      ValueError: a rate that is no positive number.
    """
    tasks, mixtures = seqio.TaskRegistry.names(), seqio.MixtureRegistry.names()
    if name in tasks:
        return [(seqio.TaskRegistry.get(name), 1.0)]
    if name not in mixtures:
        near = difflib.get_close_matches(name, [*tasks, *mixtures])
        advice = f"did you mean {' or '.join(near)}?" if near else "rt2 data list shows them all;"
        raise KeyError(
            f"no task or mixture {name!r} is registered; {advice} one of your own needs the module "
            "that registers it: --module my.tasks"
        )
    mixture = seqio.MixtureRegistry.get(name)
    rates = []
    for task in mixture.tasks:
        rate = float(mixture.get_rate(task))
        if not 0 < rate < float("inf"):
            raise ValueError(
                f"mixture {name!r}, task {task.name!r}: its rate is {rate}, expected a positive "
                "number; leave out a task that is not to be used"
            )
        rates.append(rate)
    return [(task, rate / sum(rates)) for task, rate in zip(mixture.tasks, rates, strict=True)]


def resolve_mixture(name: str, root: str | pathlib.Path, *, split: str = "train") -> Manifest:
    """Writes the manifest of a mixture (or a task) whose tasks are all cached below `root`.

    Raises:
      KeyError: no such mixture.
      FileNotFoundError: a task is not cached.
      ValueError: a damaged cache, or one that was written before its task changed.
    """
    found = find_tasks(name)
    caches = [StepCache(root, task.name, split) for task, _ in found]
    for (task, _), cache in zip(found, caches, strict=True):
        declared = step_format(task).info
        if cache.info.task != declared:
            lines = differences(cache.info.task.to_json(), declared.to_json())
            raise ValueError(
                f"{cache.directory} was cached before task {task.name!r} changed "
                f"({'; '.join(lines)}): delete it and cache the task again"
            )
    # What is declared today: a loss weight is no part of the cache.
    tasks = tuple(
        MixtureTask(
            step_format(task).info,
            share,
            cache.info.steps,
            cache.info.episodes,
            cache.info.hash,
        )
        for (task, share), cache in zip(found, caches, strict=True)
    )
    manifest = Manifest(
        name, split, tasks, mixture_statistics(caches), mixture_state_ranges(caches)
    )
    text = json.dumps(manifest.to_json(), indent=1, allow_nan=False) + "\n"
    write_atomically(manifest_path(root, name, split), text)
    return manifest
