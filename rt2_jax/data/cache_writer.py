"""Caches a registered task: reads its steps once, checks every one, writes whole files."""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import seqio

from rt2_jax.actions.identity import content_hash, differences
from rt2_jax.actions.statistics import compute_statistics
from rt2_jax.data.cache import (
    ACTIONS_FILE,
    INFO_FILE,
    INSTRUCTIONS_FILE,
    STATES_FILE,
    CacheFile,
    CacheInfo,
    StepCache,
    cache_directory,
)
from rt2_jax.data.cache_shard import (
    PARTS,
    UNFINISHED,
    CacheRunner,
    CacheWork,
    ShardSummary,
    cache_all_here,
    finished_shard,
    longest,
    write_atomically,
)
from rt2_jax.data.instructions import InstructionTable, merge_tables
from rt2_jax.data.locks import only_writer
from rt2_jax.data.registration import data_path
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.data.task_modules import declaration

_PLAN_FILE = "plan.json"
_PARTS = ("shard-*.json", *(f"{kind}-*.bytes" for kind in PARTS))
_LEFT = (f"*.{UNFINISHED}", "failure-*.txt")  # of processes that were killed


def cache_task(
    task: seqio.Task,
    root: str | pathlib.Path,
    *,
    split: str = "train",
    shard_steps: int = 10_000,
    report: Callable[[int], None] = lambda steps: None,
    run: CacheRunner = cache_all_here,
) -> CacheInfo:
    """Writes the steps of a task below `root`, in their order, one shard of its source at a time.

    Until all is there the folder's name ends in `.incomplete`, so no reader takes it for a cache;
    the same call continues an interrupted one with the shards that are not finished. On a finished
    cache it does nothing. The result is the same, byte for byte, whoever caches the shards.

    Args:
      task: registered with `robot_task` or `web_task`.
      root: folder of all caches.
      split: of the task.
      shard_steps: steps to a file, at most.
      report: called with the number of steps so far, those of a run before included.
      run: who caches the shards: this process, `in_processes(...)` or `on_beam(...)`.

    Raises:
      FileNotFoundError: the task's data are not on this disk.
      OSError: another process is writing this cache, or one of those that cache shards was killed.
      ValueError: no such split, a step that cannot be used (the message names task, episode, step
        and field), no steps at all, or a cache of something else is there; it is left as it is.
    """
    if shard_steps < 1:
        raise ValueError(f"shard_steps: found {shard_steps}, expected 1 or more")
    if split not in task.splits:
        raise ValueError(f"task {task.name!r} has no split {split!r}; it has {list(task.splits)}")
    root = pathlib.Path(root).absolute()
    info = declaration(task)
    final = cache_directory(root, task.name, split)
    plan: dict[str, Any] = {"task": info, "shard_steps": shard_steps}
    if final.exists():
        found = StepCache(root, task.name, split).info
        _check_same(final, {"task": found.task.to_json(), "shard_steps": found.shard_steps}, plan)
        return found
    shards = tuple(task.source.list_shards(split))
    plan["source_shards"] = {"count": len(shards), "hash": content_hash(list(shards))}
    partial = final.with_name(f"{split}.incomplete")
    data_dir = data_path("").absolute()
    work = CacheWork(task.name, info, split, partial, shard_steps, shards, data_dir)
    lock = final.with_name(f"{split}.lock")
    with only_writer(lock, f"another process is writing {final}; wait until it has finished"):
        try:
            if not final.exists():  # another process may have finished it meanwhile
                if not (partial / INFO_FILE).exists():
                    _begin(work, plan)
                    run(task, work, report)
                    _finish(work, TaskInfo.from_json(info))
                _remove(partial, _PLAN_FILE, *_PARTS, *_LEFT)
                partial.rename(final)
        finally:
            lock.unlink()
    return StepCache(root, task.name, split).info


def _begin(work: CacheWork, plan: dict[str, Any]) -> None:
    """Makes the folder, or takes over what an interrupted run of the same plan has left."""
    work.folder.mkdir(parents=True, exist_ok=True)
    _remove(work.folder, *_LEFT)
    file = work.folder / _PLAN_FILE
    if file.exists():
        if any(work.folder.glob("shard-*.json")):
            _check_same(work.folder, json.loads(file.read_text(encoding="utf-8")), plan)
        else:
            _remove(work.folder, "*")  # nothing in it is finished
    write_atomically(file, json.dumps(plan))


def _finish(work: CacheWork, info: TaskInfo) -> None:
    """Makes one cache of all finished shards."""
    summaries = []
    for shard, name in enumerate(work.shards):
        summary = finished_shard(work, shard)
        if summary is None:
            raise FileNotFoundError(
                f"{work.folder}: the files of source shard {name} are not there; whoever cached it "
                "must write to the same folder"
            )
        summaries.append(summary)
    steps = sum(summary.steps for summary in summaries)
    if not steps:
        raise ValueError(f"task {info.name!r}, split {work.split!r}: there are no steps")
    _check_ids(work, summaries)
    files, episodes = [], 0
    for summary in summaries:
        files += [CacheFile(name, size, count, episodes) for name, size, count in summary.files]
        episodes += summary.episodes
    robot = info.robot
    _join(work, "actions", ACTIONS_FILE, steps, robot.action_space.dimension if robot else 0)
    _join(work, "states", STATES_FILE, steps, len(robot.state_fields) if robot else 0)
    statistics = None
    if robot:
        actions = np.load(work.folder / ACTIONS_FILE)
        statistics = compute_statistics(robot.action_space, robot.embodiment, actions)
    digest = hashlib.sha256()
    for shard in range(len(work.shards)):
        digest.update(work.part("digests", shard).read_bytes())
    if encoder := info.instruction_encoder:
        parts = [work.part("instructions", shard).read_bytes() for shard in range(len(work.shards))]
        tables = [(info.name, InstructionTable.unpack(encoder, part)) for part in parts]
        packed = merge_tables(tables).pack()
        digest.update(packed)
        (work.folder / INSTRUCTIONS_FILE).write_bytes(packed)
    result = CacheInfo(
        task=info,
        split=work.split,
        steps=steps,
        episodes=episodes,
        shard_steps=work.shard_steps,
        source_shards=work.shards,
        files=tuple(files),
        hash=digest.hexdigest(),
        longest_texts=longest(text for each in summaries for text in each.longest_texts),
        longest_targets=longest(text for each in summaries for text in each.longest_targets),
        statistics=statistics,
    )
    names = {file.name for file in files}
    for file in work.folder.glob("steps-*.array_record"):
        if file.name not in names:  # of a process that was killed while it named its files
            file.unlink()
    write_atomically(work.folder / INFO_FILE, json.dumps(result.to_json(), indent=1) + "\n")


def _check_ids(work: CacheWork, summaries: Sequence[ShardSummary]) -> None:
    """That no two shards have an episode of one name; the task sees to it in each alone."""
    seen: dict[str, str] = {}
    for name, summary in zip(work.shards, summaries, strict=True):
        for episode in summary.episode_ids:
            if episode in seen:
                raise ValueError(
                    f"task {work.task!r}: an episode of source shard {seen[episode]} and one of "
                    f"{name} are both called {episode!r}, which plans by episode id cannot tell "
                    "apart; register the task with episode ids that differ"
                )
            seen[episode] = name


def _join(work: CacheWork, kind: str, name: str, rows: int, columns: int) -> None:
    """Writes the numbers of all shards, float32 [rows, columns], as one array."""
    unfinished = work.folder / f"{name}.{UNFINISHED}"
    with unfinished.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, columns)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for shard in range(len(work.shards)):
            with work.part(kind, shard).open("rb") as part:
                shutil.copyfileobj(part, file)
        size = file.tell() - start
    if size != 4 * rows * columns:
        raise ValueError(
            f"{work.folder}: {kind} of {rows} steps take {size} bytes, expected "
            f"{4 * rows * columns}; delete the folder and run again"
        )
    unfinished.replace(work.folder / name)


def _remove(folder: pathlib.Path, *patterns: str) -> None:
    for pattern in patterns:
        for file in folder.glob(pattern):
            file.unlink(missing_ok=True)


def _check_same(directory: pathlib.Path, found: dict, wanted: dict) -> None:
    lines = differences(found, wanted)
    if lines:
        raise ValueError(
            f"{directory} holds another cache than the one asked for: {'; '.join(lines)}. Nothing "
            "was changed; cache into another folder, or delete that one"
        )
