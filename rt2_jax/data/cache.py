"""A task's steps on disk, as training reads them: ArrayRecord files and what they hold, in JSON."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import json
import pathlib
import resource
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource

from rt2_jax.actions.identity import check_keys
from rt2_jax.actions.statistics import ActionStatistics
from rt2_jax.data.instructions import InstructionTable
from rt2_jax.data.step import TaskStep
from rt2_jax.data.task_info import TaskInfo

VERSION = 3
INFO_FILE = "info.json"
ACTIONS_FILE = "actions.npy"
STATES_FILE = "states.npy"
INSTRUCTIONS_FILE = "instructions.msgpack"


@dataclass(frozen=True)
class CacheFile:
    """A file of a cache, with steps of one shard of the task's source.

    Attributes:
      name: in the cache's folder.
      size: in bytes.
      steps: how many it holds.
      first_episode: the number in the split of its source shard's first episode; in the file a
        step has its episode's number in that shard.
    """

    name: str
    size: int
    steps: int
    first_episode: int


@dataclass(frozen=True)
class CacheInfo:
    """What a finished cache holds.

    Attributes:
      task: what the task declared when it was cached.
      split: of the task.
      steps: how many there are.
      episodes: how many there are.
      shard_steps: how many a file holds; the last one of a source shard may hold fewer.
      source_shards: names of the shards of the task's source, in order.
      files: in the order of the steps.
      hash: SHA-256 of all steps in order, and of their instructions' vectors; the same for any
        number of files and source shards.
      longest_texts: the longest distinct texts, to know before training whether they fit.
      longest_targets: the longest distinct targets.
      statistics: of the actions; None for a web task.
    """

    task: TaskInfo
    split: str
    steps: int
    episodes: int
    shard_steps: int
    source_shards: tuple[str, ...]
    files: tuple[CacheFile, ...]
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
        # Before the keys, which other versions have others of.
        if isinstance(data, dict) and data.get("version", VERSION) != VERSION:
            raise ValueError(
                f"{where}: version {data['version']}, this code reads {VERSION}: delete "
                f"{pathlib.Path(where).parent} and cache the task again"
            )
        names = tuple(field.name for field in fields(cls))
        check_keys(where, data, ("version", *names))
        values = {name: data[name] for name in names}
        for name in ("source_shards", "longest_texts", "longest_targets"):
            values[name] = tuple(values[name])
        values["files"] = tuple(CacheFile(**file) for file in data["files"])
        values["task"] = TaskInfo.from_json(data["task"])
        if data["statistics"] is not None:
            values["statistics"] = ActionStatistics.from_json(data["statistics"], where)
        return cls(**values)


def cache_directory(root: pathlib.Path, task: str, split: str) -> pathlib.Path:
    """Where a task's cache is."""
    return root / task / split


class StepSource(Protocol):
    """Steps by number: those of a cache, or those that are read while a run trains."""

    info: CacheInfo

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> TaskStep: ...

    def actions(self) -> np.ndarray: ...

    def instructions(self) -> InstructionTable | None: ...


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
        files = self.info.files
        for file in files:
            there = self.directory / file.name
            if not there.is_file():
                raise FileNotFoundError(f"{there} is missing; {self._advice}")
            if there.stat().st_size != file.size:
                raise ValueError(
                    f"{there}: damaged, found {there.stat().st_size} bytes, expected {file.size}; "
                    f"{self._advice}"
                )
        self._ends = list(itertools.accumulate(file.steps for file in files))
        allow_open_files(len(files))
        self._source = ArrayRecordDataSource([str(self.directory / file.name) for file in files])
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
        file = self.info.files[bisect.bisect_right(self._ends, index)]
        try:
            step = TaskStep.unpack(self._source[index])
        except Exception as error:  # ArrayRecord has no error class of its own
            raise ValueError(
                f"{self.directory / file.name}: step {index} of task {self.info.task.name!r} is "
                f"damaged ({error}); {self._advice}"
            ) from error
        return dataclasses.replace(step, episode=file.first_episode + step.episode)

    def actions(self) -> np.ndarray:
        """All actions, float32 [N, D], native units; D = 0 in a web task."""
        return np.load(self.directory / ACTIONS_FILE)

    def states(self) -> np.ndarray:
        """All states, float32 [N, S], native units; S = 0 where a task has none."""
        return np.load(self.directory / STATES_FILE)

    def instructions(self) -> InstructionTable | None:
        """The vectors that are stored with the instructions; None where a task has none.

        Raises:
          ValueError: they are missing or damaged.
        """
        encoder = self.info.task.instruction_encoder
        if encoder is None:
            return None
        path = self.directory / INSTRUCTIONS_FILE
        try:
            return InstructionTable.unpack(encoder, path.read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: damaged ({error}); {self._advice}") from error


def allow_open_files(count: int) -> None:
    """Makes room for so many more open files: each one that was read from stays open.

    A shell's limit is often 1,024, which the caches of a large mixture exceed; processes that this
    one starts inherit the new one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = soft + count if hard == resource.RLIM_INFINITY else min(soft + count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
