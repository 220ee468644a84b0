"""The resolved manifest of a mixture: all that training and serving need of it, as plain JSON."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rt2_jax.actions.bounds import Bounds
from rt2_jax.actions.identity import check_keys, content_hash
from rt2_jax.actions.statistics import (
    ActionStatistics,
    StatisticsTable,
    compute_statistics,
    resolve_bounds,
)
from rt2_jax.data.cache import StepCache, StepSource
from rt2_jax.data.state_text import StateRanges, StateText
from rt2_jax.data.task_info import TaskInfo

VERSION = 2
_KEYS = ("version", "mixture", "split", "tasks", "statistics", "state_ranges")


@dataclass(frozen=True)
class MixtureTask:
    """A task of a resolved mixture.

    Attributes:
      info: what the task declares.
      share: of the mixture; the shares sum to 1.
      steps: how many its cache holds; 0 without one.
      episodes: how many its cache holds; 0 without one.
      cache_hash: of the cached steps; None for a task that training reads through SeqIO.
    """

    info: TaskInfo
    share: float
    steps: int
    episodes: int
    cache_hash: str | None


@dataclass(frozen=True)
class Manifest:
    """A mixture with everything evaluated; a task's number here is its `source_id` in batches.

    Attributes:
      mixture: its name in SeqIO's registry.
      split: of its tasks.
      tasks: in the mixture's order.
      statistics: of each (embodiment, action space) in it.
      state_ranges: of each (embodiment, action space, names of the state's numbers) in it.

    Raises:
      KeyError, ValueError: the statistics of a robot task are missing or of another space.
    """

    mixture: str
    split: str
    tasks: tuple[MixtureTask, ...]
    statistics: StatisticsTable
    state_ranges: tuple[StateRanges, ...] = ()

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task.info.robot is not None:
                try:
                    self.bounds(task.info)
                except KeyError as error:
                    raise KeyError(
                        f"mixture {self.mixture!r}, task {task.info.name!r}: {error.args[0]}; "
                        f"cache the task and resolve the mixture again, or give it statistics: "
                        f"rt2 data resolve {self.mixture} --statistics FILE"
                    ) from None

    def bounds(self, info: TaskInfo) -> Bounds:
        """The resolved bounds of a robot task's actions."""
        if info.robot is None:
            raise ValueError(f"task {info.name!r} has no actions, so it has no bounds")
        space = info.robot.action_space
        known = (info.robot.embodiment, space.name) in self.statistics.keys
        if not known and not info.robot.needs_statistics:
            return resolve_bounds(space)
        return resolve_bounds(space, self.statistics.get(info.robot.embodiment, space))

    def state_text(self, info: TaskInfo, fields: Sequence[str], bins: int) -> StateText | None:
        """What writes these numbers of a robot task's state; None for none, and for web tasks.

        Raises:
          KeyError: the robot has no such numbers, or the manifest no ranges of them.
        """
        if not fields or info.robot is None:
            return None
        robot = info.robot
        key = (robot.embodiment, robot.action_space.name, robot.state_fields)
        for entry in self.state_ranges:
            if entry.key == key:
                return StateText(entry, tuple(fields), bins)
        raise KeyError(
            f"task {info.name!r}: its robot {key[0]!r} declares the state {list(key[2])}, of which "
            f"mixture {self.mixture!r} has no ranges, so {list(fields)} cannot be written; "
            + (
                "cache the task, or resolve the mixture with the manifest of one that has them: "
                f"rt2 data resolve {self.mixture} --statistics MANIFEST"
                if robot.state_fields
                else "declare state_fields at registration, or leave the state out of the prompt"
            )
        )

    def robots(self) -> Manifest:
        """The part of the mixture that has actions, its shares made whole.

        Raises:
          ValueError: there is none.
        """
        tasks = [task for task in self.tasks if task.info.robot is not None]
        if not tasks:
            raise ValueError(
                f"mixture {self.mixture!r} has no robot, and the run trains on robots only"
            )
        total = sum(task.share for task in tasks)
        parts = tuple(replace(task, share=task.share / total) for task in tasks)
        return replace(self, tasks=parts)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; it holds no path, so a folder of caches can be moved."""
        return {
            "version": VERSION,
            "mixture": self.mixture,
            "split": self.split,
            "tasks": [{**task.__dict__, "info": task.info.to_json()} for task in self.tasks],
            "statistics": [entry.to_json() for entry in self.statistics.entries],
            "state_ranges": [entry.to_json() for entry in self.state_ranges],
        }

    @classmethod
    def from_json(cls, data: Any, where: str = "manifest") -> Manifest:
        """Reads what `to_json` wrote; `where` is what errors call it."""
        if isinstance(data, dict) and data.get("version") != VERSION:
            raise ValueError(
                f"{where}: version {data.get('version')}, this code reads {VERSION}: resolve it "
                "again"
            )
        check_keys(where, data, _KEYS)
        tasks = []
        for task in data["tasks"]:
            names = ("info", "share", "steps", "episodes", "cache_hash")
            check_keys(f"{where}: task", task, names)
            tasks.append(MixtureTask(**{**task, "info": TaskInfo.from_json(task["info"])}))
        entries = [ActionStatistics.from_json(entry, where) for entry in data["statistics"]]
        states = tuple(StateRanges.from_json(each, where) for each in data["state_ranges"])
        return cls(
            data["mixture"], data["split"], tuple(tasks), StatisticsTable(tuple(entries)), states
        )

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON; with seed, batch size and step it decides every batch."""
        return content_hash(self.to_json())


def manifest_path(root: str | pathlib.Path, mixture: str, split: str) -> pathlib.Path:
    """Where a mixture's manifest is, beside the caches of its tasks."""
    return pathlib.Path(root) / f"{mixture}.{split}.json"


def load_manifest(path: str | pathlib.Path) -> Manifest:
    """Reads a manifest file.

    Raises:
      FileNotFoundError: there is none.
      KeyError, ValueError: it is damaged, of another version, or lacks statistics.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no manifest {path}: write it with: rt2 data resolve MIXTURE --cache-dir {path.parent}"
        )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged, not JSON ({error}); resolve it again") from error
    return Manifest.from_json(data, str(path))


def load_statistics(
    path: str | pathlib.Path,
) -> tuple[StatisticsTable, tuple[StateRanges, ...]]:
    """Statistics and ranges of a file: a mixture's manifest, or a `StatisticsTable` (no ranges).

    Raises:
      FileNotFoundError: there is none. ValueError, KeyError: it holds something else.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file of statistics {path}; expected a manifest or a table")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: no JSON file: {error}") from error
    if isinstance(data, dict) and "mixture" in data:
        manifest = Manifest.from_json(data, str(path))
        return manifest.statistics, manifest.state_ranges
    return StatisticsTable.load(path), ()


def open_caches(manifest: Manifest, root: str | pathlib.Path) -> list[StepSource]:
    """The caches of a manifest's tasks, and what reads the others through SeqIO.

    Raises:
      FileNotFoundError: a task is not cached.
      KeyError: a task to be read through SeqIO is not registered.
      ValueError: a cache is damaged, or is not the one that the manifest was resolved with.
    """
    caches: list[StepSource] = []
    for task in manifest.tasks:
        if task.cache_hash is None:
            from rt2_jax.data.step_stream import StepStream  # imports TensorFlow

            caches.append(StepStream(task.info, manifest.split))
            continue
        cache = StepCache(root, task.info.name, manifest.split)
        if cache.info.hash != task.cache_hash or cache.info.task != task.info:
            raise ValueError(
                f"{cache.directory} is not the cache that mixture {manifest.mixture!r} was "
                f"resolved with (hash {cache.info.hash[:12]}, expected {task.cache_hash[:12]}): "
                "resolve the mixture again, or bring the old cache back"
            )
        caches.append(cache)
    return caches


def mixture_statistics(caches: list[StepCache]) -> StatisticsTable:
    """Statistics of each (embodiment, action space), over all tasks that share it."""
    groups: dict[tuple[str, str], list[StepCache]] = {}
    for cache in caches:
        robot = cache.info.task.robot
        if robot is not None:
            key = (robot.embodiment, robot.action_space.name)
            groups.setdefault(key, []).append(cache)
    entries = []
    for group in groups.values():
        robot = group[0].info.task.robot
        assert robot is not None
        for cache in group[1:]:
            other = cache.info.task.robot
            assert other is not None
            robot.action_space.check_same(other.action_space, f"task {cache.info.task.name!r}")
        actions = np.concatenate([cache.actions() for cache in group])
        entries.append(compute_statistics(robot.action_space, robot.embodiment, actions))
    return StatisticsTable(tuple(entries))


def mixture_state_ranges(caches: list[StepCache]) -> tuple[StateRanges, ...]:
    """Ranges of each (embodiment, action space, names of its state), over all tasks that share it.

    Raises:
      ValueError: two tasks that share it declare different bounds.
    """
    groups: dict[tuple[str, str, tuple[str, ...]], list[StepCache]] = {}
    for cache in caches:
        robot = cache.info.task.robot
        if robot is not None and robot.state_fields:
            key = (robot.embodiment, robot.action_space.name, robot.state_fields)
            groups.setdefault(key, []).append(cache)
    entries = []
    for group in groups.values():
        robots = [cache.info.task.robot for cache in group]
        first = robots[0]
        assert first is not None
        for cache, robot in zip(group, robots, strict=True):
            assert robot is not None
            if robot.state_bounds != first.state_bounds:
                raise ValueError(
                    f"tasks {group[0].info.task.name!r} and {cache.info.task.name!r} are of one "
                    f"robot and declare different state_bounds: {first.state_bounds} and "
                    f"{robot.state_bounds}"
                )
        entries.append(StateRanges.compute(first, np.concatenate([c.states() for c in group])))
    return tuple(entries)
