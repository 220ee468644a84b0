"""Finds registered tasks and mixtures, and resolves a mixture into its manifest."""

from __future__ import annotations

import difflib
import json
import pathlib

import seqio

from rt2_jax.actions.identity import differences
from rt2_jax.actions.statistics import ActionStatistics, StatisticsTable
from rt2_jax.data.cache import StepCache, cache_directory
from rt2_jax.data.cache_shard import write_atomically
from rt2_jax.data.manifest import (
    Manifest,
    MixtureTask,
    load_statistics,
    manifest_path,
    mixture_state_ranges,
    mixture_statistics,
)
from rt2_jax.data.registration import step_format
from rt2_jax.data.state_text import StateRanges

Known = tuple[StatisticsTable, tuple[StateRanges, ...]]


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


def resolve_mixture(
    name: str,
    root: str | pathlib.Path,
    *,
    split: str = "train",
    statistics: str | pathlib.Path | None = None,
    uncached: bool = False,
) -> Manifest:
    """Writes the manifest of a mixture, or of a task, whose tasks are cached below `root`.

    Args:
      name: of the mixture.
      root: folder of all caches.
      split: of its tasks.
      statistics: a file whose statistics hold for the robots that are in it, instead of those of
        the caches: another mixture's manifest, or what `StatisticsTable.save` wrote.
      uncached: whether training is to read those that are not cached through SeqIO; see
        `StepStream` for what is lost.

    Raises:
      KeyError: no such mixture, or an uncached robot needs statistics and there are none.
      FileNotFoundError: a task is not cached, or there is no file of statistics.
      ValueError: a damaged cache, one that was written before its task changed, or a file of
        statistics that knows none of the mixture's robots.
    """
    tasks: list[MixtureTask] = []
    caches: list[StepCache] = []
    for task, share in find_tasks(name):
        # What is declared today: a loss weight is no part of the cache.
        declared = step_format(task).info
        if uncached and not cache_directory(pathlib.Path(root), task.name, split).exists():
            tasks.append(MixtureTask(declared, share, 0, 0, None))
            continue
        cache = StepCache(root, task.name, split)
        if cache.info.task != declared:
            lines = differences(cache.info.task.to_json(), declared.to_json())
            raise ValueError(
                f"{cache.directory} was cached before task {task.name!r} changed "
                f"({'; '.join(lines)}): delete it and cache the task again"
            )
        info = cache.info
        tasks.append(MixtureTask(declared, share, info.steps, info.episodes, info.hash))
        caches.append(cache)
    table, ranges = mixture_statistics(caches), mixture_state_ranges(caches)
    if statistics is not None:
        table, ranges = _chosen(tasks, (table, ranges), load_statistics(statistics), statistics)
    manifest = Manifest(name, split, tuple(tasks), table, ranges)
    text = json.dumps(manifest.to_json(), indent=1, allow_nan=False) + "\n"
    pathlib.Path(root).mkdir(parents=True, exist_ok=True)
    write_atomically(manifest_path(root, name, split), text)
    return manifest


def _chosen(
    tasks: list[MixtureTask], ours: Known, theirs: Known, where: str | pathlib.Path
) -> Known:
    """Their statistics and ranges of the mixture's robots where they have them, ours elsewhere."""
    robots = {
        (task.info.robot.embodiment, task.info.robot.action_space.name)
        for task in tasks
        if task.info.robot is not None
    }
    if not robots & set(theirs[0].keys):
        raise ValueError(
            f"{where} has statistics of {theirs[0].keys}, the mixture's robots are {sorted(robots)}"
        )
    entries = {key: entry for table in (ours[0], theirs[0]) for key, entry in _by_key(table)}
    ranges = {each.key: each for each in (*ours[1], *theirs[1])}
    return (
        StatisticsTable(tuple(entry for key, entry in entries.items() if key in robots)),
        tuple(each for key, each in ranges.items() if key[:2] in robots),
    )


def _by_key(table: StatisticsTable) -> zip[tuple[tuple[str, str], ActionStatistics]]:
    return zip(table.keys, table.entries, strict=True)
