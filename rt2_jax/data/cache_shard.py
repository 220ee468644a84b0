"""Caches one shard of a task's source: the same files whoever does it, whole or not there at all.

A shard is finished when its summary is there, which is written last. Everything else about a cache
(who caches which shard, and what is made of all of them) is elsewhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import heapq
import itertools
import json
import pathlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import seqio
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from rt2_jax.data.instructions import InstructionTable, add_embedding
from rt2_jax.data.registration import step_format
from rt2_jax.data.step import TaskStep
from rt2_jax.data.step_reader import read_shard

UNFINISHED = "unfinished"
"""What the last part of a name says of a file that is being written, or was when it was killed."""
_NUMBERS = ("actions", "states", "digests")
PARTS = (*_NUMBERS, "instructions")
"""Kinds of files that a shard has beside its steps, see `CacheWork.part`."""
_LONGEST = 1024  # texts that are kept to check lengths before training
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class CacheWork:
    """What is to be cached, in a form that can be sent to other processes and machines.

    Attributes:
      task: its name.
      info: what it declares, as JSON, so that another declaration of the name is noticed.
      split: of the task.
      folder: where files go; the absolute path, the same wherever shards are cached.
      shard_steps: steps to a file, at most.
      shards: names of the shards of the task's source.
      data_dir: the absolute path of `data_path`'s folder.
    """

    task: str
    info: dict[str, Any]
    split: str
    folder: pathlib.Path
    shard_steps: int
    shards: tuple[str, ...]
    data_dir: pathlib.Path

    def part(self, kind: str, shard: int) -> pathlib.Path:
        """The file of a shard's `actions`, `states` or `digests`, numbers one after the other.

        Or of its `instructions`, what `InstructionTable.pack` makes of their vectors.
        """
        return self.folder / f"{kind}-{shard:05d}.bytes"

    def summary(self, shard: int) -> pathlib.Path:
        """The file of a shard's `ShardSummary`."""
        return self.folder / f"shard-{shard:05d}.json"

    def failure(self, shard: int) -> pathlib.Path:
        """The file that says what went wrong with a shard, where nothing else can."""
        return self.folder / f"failure-{shard:05d}.txt"


CacheRunner = Callable[[seqio.Task, CacheWork, Callable[[int], None]], None]
"""Calls `cache_shard` for every shard of the work, wherever; the first error ends all.

It is given the task, the work, and what is to be called with the number of steps so far.
"""


@dataclass(frozen=True)
class ShardSummary:
    """What a finished shard holds.

    Attributes:
      steps: how many there are; may be 0.
      episodes: how many there are.
      files: names, sizes in bytes and steps of its files.
      longest_texts: the longest distinct texts.
      longest_targets: the longest distinct targets.
      episode_ids: of all its episodes; () unless the task's have to be unique.
    """

    steps: int
    episodes: int
    files: tuple[tuple[str, int, int], ...]
    longest_texts: tuple[str, ...]
    longest_targets: tuple[str, ...]
    episode_ids: tuple[str, ...]


def cache_shard(
    task: seqio.Task,
    work: CacheWork,
    shard: int,
    report: Callable[[int], None] = lambda steps: None,
) -> ShardSummary:
    """Reads, checks and writes the steps of a shard, and reads them back; or only the last.

    What is written is the same every time, so that two processes may do it at once.

    Args:
      task: that of the work.
      work: what is to be cached.
      shard: its place in `work.shards`.
      report: called with the number of the shard's steps after each.

    Raises:
      FileNotFoundError: the task's data are not on this disk.
      ValueError: a step that cannot be used, or a finished file that holds other steps than were
        written; the message names the shard where there are several.
    """
    try:
        summary = finished_shard(work, shard)
        if summary is not None:
            _check_written(
                [work.folder / name for name, _, _ in summary.files], work.part("digests", shard)
            )
            report(summary.steps)
            return summary
        return _write(task, work, shard, report)
    except ValueError as error:
        if len(work.shards) == 1:
            raise
        raise ValueError(
            f"{error} (split {work.split!r}, source shard {work.shards[shard]})"
        ) from error


def cache_all_here(task: seqio.Task, work: CacheWork, report: Callable[[int], None]) -> None:
    """The `CacheRunner` of this process: one shard after the other."""
    before = 0

    def report_shard(steps: int) -> None:
        report(before + steps)

    for shard in range(len(work.shards)):
        before += cache_shard(task, work, shard, report_shard).steps


def finished_shard(work: CacheWork, shard: int) -> ShardSummary | None:
    """What a shard holds, None where it is not finished, or not all of its files are whole."""
    path = work.summary(shard)
    if not all(file.is_file() for file in (path, *(work.part(kind, shard) for kind in PARTS))):
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    files = tuple((name, size, steps) for name, size, steps in data.pop("files"))
    for name, size, _ in files:
        file = work.folder / name
        if not file.is_file() or file.stat().st_size != size:
            return None
    return ShardSummary(files=files, **{key: _tuple(value) for key, value in data.items()})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _write(
    task: seqio.Task, work: CacheWork, shard: int, report: Callable[[int], None]
) -> ShardSummary:
    form = step_format(task)
    info = form.info
    texts: set[str] = set()
    targets: set[str] = set()
    ids: set[str] = set()
    embeddings: dict[str, np.ndarray] = {}
    files: list[tuple[pathlib.Path, int]] = []
    total, last = 0, -1
    steps = read_shard(task, work.split, shard, len(work.shards))
    with _Attempt() as attempt:
        actions, states, digests = (
            attempt.stack.enter_context(attempt.path(work.part(kind, shard)).open("wb"))
            for kind in _NUMBERS
        )
        while (head := next(steps, None)) is not None:
            file = work.folder / f"steps-{shard:05d}-{len(files):05d}.array_record"
            count = 0
            with _records(attempt.path(file)) as write:
                for step in itertools.chain([head], itertools.islice(steps, work.shard_steps - 1)):
                    step.check(info)
                    write(step.pack())
                    digests.write(_digest(step))
                    if info.robot:
                        actions.write(step.action.astype("<f4").tobytes())
                        states.write(step.state.astype("<f4").tobytes())
                    if info.instruction_encoder:
                        _add_embedding(embeddings, step, info.name)
                    texts.add(step.text)
                    targets.add(step.target)
                    if form.unique_episode_ids:
                        ids.add(step.episode_id)
                    last = step.episode
                    count += 1
                    report(total + count)
            files.append((file, count))
            total += count
            texts, targets = set(longest(texts)), set(longest(targets))
        attempt.stack.close()
        if info.instruction_encoder:
            instructions = InstructionTable(info.instruction_encoder, embeddings).pack()
        else:
            instructions = b""
        attempt.path(work.part("instructions", shard)).write_bytes(instructions)
        _check_written(
            [attempt.path(file) for file, _ in files], attempt.path(work.part("digests", shard))
        )
        summary = ShardSummary(
            steps=total,
            episodes=last + 1,
            files=tuple((f.name, attempt.path(f).stat().st_size, count) for f, count in files),
            longest_texts=longest(texts),
            longest_targets=longest(targets),
            episode_ids=tuple(sorted(ids)),
        )
        attempt.finish()
        write_atomically(work.summary(shard), json.dumps(dataclasses.asdict(summary)) + "\n")
    return summary


def _add_embedding(embeddings: dict[str, np.ndarray], step: TaskStep, task: str) -> None:
    try:
        add_embedding(embeddings, step.text, step.instruction_embedding)
    except ValueError as error:
        where = f"task {task!r}, episode {step.episode} ({step.episode_id!r}), step {step.step}"
        raise ValueError(f"{where}: {error}") from None


class _Attempt:
    """Files under names of their own, which take those that they are to have all at the end."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        self._ending = _ending()
        self._files: list[pathlib.Path] = []

    def path(self, file: pathlib.Path) -> pathlib.Path:
        """Where this file is until then."""
        if file not in self._files:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._files.append(file)
        return file.with_name(file.name + self._ending)

    def finish(self) -> None:
        for file in self._files:
            self.path(file).replace(file)

    def __enter__(self) -> _Attempt:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stack.close()
        for file in self._files:
            self.path(file).unlink(missing_ok=True)


def _ending() -> str:
    """Of a file that nobody else writes, on this machine or another."""
    return f".{uuid.uuid4().hex[:12]}.{UNFINISHED}"


@contextlib.contextmanager
def _records(file: pathlib.Path) -> Iterator[Callable[[bytes], None]]:
    # One record to a group: training reads single steps in any order.
    writer = ArrayRecordWriter(str(file), "group_size:1")
    try:
        yield writer.write
    finally:
        writer.close()


def _digest(step: TaskStep) -> bytes:
    """SHA-256 of a step without its episode's number, which depends on how a source is divided."""
    return hashlib.sha256(dataclasses.replace(step, episode=0).pack()).digest()


def longest(texts: Iterable[str]) -> tuple[str, ...]:
    """The longest of these distinct texts, sorted."""
    return tuple(sorted(heapq.nlargest(_LONGEST, set(texts), key=lambda text: (len(text), text))))


def _check_written(files: Sequence[pathlib.Path], digests: pathlib.Path) -> None:
    """That these files hold the steps with these digests, in order."""
    with digests.open("rb") as expected:
        for file in files:
            try:
                with ArrayRecordDataSource(str(file)) as source:
                    found = [_digest(TaskStep.unpack(source[i])) for i in range(len(source))]
            except Exception as error:  # ArrayRecord has no error class of its own
                raise ValueError(f"{file}: damaged ({error}); delete it and run again") from error
            if b"".join(found) != expected.read(_DIGEST_BYTES * len(found)):
                raise ValueError(
                    f"{file}: holds other steps than were written; delete it and run again"
                )
        if expected.read(1):
            raise ValueError(f"{digests.parent}: a file is missing; delete the folder")


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a file that is there whole or not at all."""
    unfinished = path.with_name(path.name + _ending())
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
