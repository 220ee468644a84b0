"""The resolved manifest of a mixture: all that training and serving need of it, as plain JSON."""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass
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
from rt2_jax.data.cache import StepCache
from rt2_jax.data.task_info import TaskInfo

VERSION = 1


@dataclass(frozen=True)
class MixtureTask:
    """A task of a resolved mixture.

    Attributes:
      info: what the task declares.
      share: of the mixture; the shares sum to 1.
      steps: how many its cache holds.
      episodes: how many its cache holds.
      cache_hash: of the cached steps.
    """

    info: TaskInfo
    share: float
    steps: int
    episodes: int
    cache_hash: str


@dataclass(frozen=True)
class Manifest:
    """A mixture with everything evaluated; a task's number here is its `source_id` in batches.

    Attributes:
      mixture: its name in SeqIO's registry.
      split: of its tasks.
      tasks: in the mixture's order.
      statistics: of each (embodiment, action space) in it.

    Raises:
      KeyError, ValueError: the statistics of a robot task are missing or of another space.
    """

    mixture: str
    split: str
    tasks: tuple[MixtureTask, ...]
    statistics: StatisticsTable

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task.info.robot is not None:
                try:
                    self.bounds(task.info)
                except KeyError as error:
                    raise KeyError(
                        f"mixture {self.mixture!r}, task {task.info.name!r}: {error.args[0]}; "
                        f"resolve the mixture again: rt2 data resolve {self.mixture}"
                    ) from None

    def bounds(self, info: TaskInfo) -> Bounds:
        """The resolved bounds of a robot task's actions."""
        if info.robot is None:
            raise ValueError(f"task {info.name!r} has no actions, so it has no bounds")
        space = info.robot.action_space
        return resolve_bounds(space, self.statistics.get(info.robot.embodiment, space))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; it holds no path, so a folder of caches can be moved."""
        return {
            "version": VERSION,
            "mixture": self.mixture,
            "split": self.split,
            "tasks": [{**task.__dict__, "info": task.info.to_json()} for task in self.tasks],
            "statistics": [entry.to_json() for entry in self.statistics.entries],
        }

    @classmethod
    def from_json(cls, data: Any, where: str = "manifest") -> Manifest:
        """Reads what `to_json` wrote; `where` is what errors call it."""
        check_keys(where, data, ("version", "mixture", "split", "tasks", "statistics"))
        if data["version"] != VERSION:
            raise ValueError(
                f"{where}: version {data['version']}, this code reads {VERSION}: resolve it again"
            )
        tasks = []
        for task in data["tasks"]:
            names = ("info", "share", "steps", "episodes", "cache_hash")
            check_keys(f"{where}: task", task, names)
            tasks.append(MixtureTask(**{**task, "info": TaskInfo.from_json(task["info"])}))
        entries = [ActionStatistics.from_json(entry, where) for entry in data["statistics"]]
        return cls(data["mixture"], data["split"], tuple(tasks), StatisticsTable(tuple(entries)))

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


def open_caches(manifest: Manifest, root: str | pathlib.Path) -> list[StepCache]:
    """The caches of a manifest's tasks.

    Raises:
      FileNotFoundError: a task is not cached.
      ValueError: a cache is damaged, or is not the one that the manifest was resolved with.
    """
    caches = []
    for task in manifest.tasks:
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
