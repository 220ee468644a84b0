"""A task's steps on disk, as training reads them: ArrayRecord files and what they hold, in JSON."""

from __future__ import annotations

import json
import pathlib
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from rt2_jax.actions.identity import check_keys
from rt2_jax.actions.statistics import ActionStatistics
from rt2_jax.data.step import TaskStep
from rt2_jax.data.task_info import TaskInfo

VERSION = 2
INFO_FILE = "info.json"
ACTIONS_FILE = "actions.npy"
STATES_FILE = "states.npy"


@dataclass(frozen=True)
class CacheInfo:
    """What a finished cache holds.

    Attributes:
      task: what the task declared when it was cached.
      split: of the task.
      steps: how many there are.
      episodes: how many there are.
      shard_steps: how many a file holds; the last one may hold fewer.
      shard_bytes: the files' sizes.
      hash: SHA-256 of all steps in order; the same for any number of files.
      longest_texts: the longest distinct texts, to know before training whether they fit.
      longest_targets: the longest distinct targets.
      statistics: of the actions; None for a web task.
    """

    task: TaskInfo
    split: str
    steps: int
    episodes: int
    shard_steps: int
    shard_bytes: tuple[int, ...]
    hash: str
    longest_texts: tuple[str, ...]
    longest_targets: tuple[str, ...]
    statistics: ActionStatistics | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "version": VERSION,
            **asdict(self),
            "task": self.task.to_json(),
            "statistics": self.statistics.to_json() if self.statistics else None,
        }

    @classmethod
    def from_json(cls, data: Any, where: str) -> CacheInfo:
        """Reads what `to_json` wrote; `where` is what errors call it."""
        names = tuple(field.name for field in fields(cls))
        check_keys(where, data, ("version", *names))
        if data["version"] != VERSION:
            raise ValueError(
                f"{where}: version {data['version']}, this code reads {VERSION}: cache it again"
            )
        values = {name: data[name] for name in names}
        for name in ("shard_bytes", "longest_texts", "longest_targets"):
            values[name] = tuple(values[name])
        values["task"] = TaskInfo.from_json(data["task"])
        if data["statistics"] is not None:
            values["statistics"] = ActionStatistics.from_json(data["statistics"], where)
        return cls(**values)


def cache_directory(root: pathlib.Path, task: str, split: str) -> pathlib.Path:
    """Where a task's cache is."""
    return root / task / split


def shard_file(shard: int) -> str:
    """The name of a shard's file."""
    return f"steps-{shard:05d}.array_record"


class StepSource(Protocol):
    """Steps by number: those of a cache, or those that are read while a run trains."""

    info: CacheInfo

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> TaskStep: ...

    def actions(self) -> np.ndarray: ...


class StepCache:
    """The steps of a finished cache by number; it can be pickled, and so be sent to data workers.

    Attributes:
      directory: of the cache.
      info: what it holds.

    Raises:
      FileNotFoundError: there is no finished cache, or a file of it is missing.
      ValueError: a file has another size than was written, or `info.json` is damaged.
    """

    def __init__(self, root: str | pathlib.Path, task: str, split: str) -> None:
        self.directory = cache_directory(pathlib.Path(root), task, split)
        path = self.directory / INFO_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"task {task!r} is not cached: no {path}; run: rt2 data cache {task} "
                f"--split {split} --cache-dir {root}"
            )
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: damaged, not JSON ({error}); {self._advice}") from error
        self.info = CacheInfo.from_json(data, str(path))
        sizes = self.info.shard_bytes
        self._files = [self.directory / shard_file(i) for i in range(len(sizes))]
        for file, size in zip(self._files, sizes, strict=True):
            if not file.is_file():
                raise FileNotFoundError(f"{file} is missing; {self._advice}")
            if file.stat().st_size != size:
                raise ValueError(
                    f"{file}: damaged, found {file.stat().st_size} bytes, expected {size}; "
                    f"{self._advice}"
                )
        self._source = ArrayRecordDataSource([str(file) for file in self._files])
        if len(self._source) != self.info.steps:
            raise ValueError(
                f"{self.directory}: damaged, found {len(self._source)} steps, expected "
                f"{self.info.steps}; {self._advice}"
            )

    @property
    def _advice(self) -> str:
        return f"delete {self.directory} and cache the task again"

    def __len__(self) -> int:
        return self.info.steps

    def __getitem__(self, index: int) -> TaskStep:
        """Reads a step. Raises ValueError with the file's name where it is damaged."""
        try:
            return TaskStep.unpack(self._source[index])
        except Exception as error:  # ArrayRecord has no error class of its own
            file = self._files[index // self.info.shard_steps]
            raise ValueError(
                f"{file}: step {index} of task {self.info.task.name!r} is damaged ({error}); "
                f"{self._advice}"
            ) from error

    def actions(self) -> np.ndarray:
        """All actions, float32 [N, D], native units; D = 0 in a web task."""
        return np.load(self.directory / ACTIONS_FILE)

    def states(self) -> np.ndarray:
        """All states, float32 [N, S], native units; S = 0 where a task has none."""
        return np.load(self.directory / STATES_FILE)
