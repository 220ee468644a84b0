"""Caches a registered task: reads its steps once, checks every one, writes whole files."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import heapq
import itertools
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator

import numpy as np
import seqio
import tensorflow as tf
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from rt2_jax.actions.identity import differences
from rt2_jax.actions.statistics import compute_statistics
from rt2_jax.data.cache import (
    ACTIONS_FILE,
    INFO_FILE,
    STATES_FILE,
    CacheInfo,
    StepCache,
    cache_directory,
    shard_file,
)
from rt2_jax.data.registration import step_format
from rt2_jax.data.step import TaskStep
from rt2_jax.data.task_info import TaskInfo

_PLAN_FILE = "plan.json"
# What TensorFlow puts before the message of an error in a task's own code.
_IN_GRAPH = re.compile(r"^(\{\{function_node .*?\}\} )?(\w+Error: )?")
_LONGEST = 1024  # texts that are kept to check lengths before training


def cache_task(
    task: seqio.Task,
    root: str | pathlib.Path,
    *,
    split: str = "train",
    shard_steps: int = 10_000,
    report: Callable[[int], None] = lambda steps: None,
) -> CacheInfo:
    """Writes the steps of a task below `root`, in their order.

    Until all is there the folder's name ends in `.incomplete`, so no reader takes it for a cache;
    the same call continues an interrupted one. On a finished cache it does nothing.

    Args:
      task: registered with `robot_task` or `web_task`.
      root: folder of all caches.
      split: of the task.
      shard_steps: steps to a file.
      report: called with the number of steps after each.

    Raises:
      FileNotFoundError: the task's data are not on this disk.
      ValueError: no such split, a step that cannot be used (the message names task, episode, step
        and field), no steps at all, or a cache of something else is there; it is left as it is.
    """
    if shard_steps < 1:
        raise ValueError(f"shard_steps: found {shard_steps}, expected 1 or more")
    if split not in task.splits:
        raise ValueError(f"task {task.name!r} has no split {split!r}; it has {list(task.splits)}")
    root = pathlib.Path(root)
    info = dataclasses.replace(step_format(task).info, loss_weight=1.0)  # no part of a cache
    final = cache_directory(root, task.name, split)
    plan = json.loads(json.dumps({"task": info.to_json(), "shard_steps": shard_steps}))
    if final.exists():
        found = StepCache(root, task.name, split).info
        done = {"task": found.task.to_json(), "shard_steps": found.shard_steps}
        _check_same(final, done, plan)
        return found
    partial = final.with_name(f"{split}.incomplete")
    steps = read_steps(task, split)
    first = next(steps, None)
    if first is None:
        raise ValueError(f"task {task.name!r}, split {split!r}: there are no steps")
    partial.mkdir(parents=True, exist_ok=True)
    plan_file = partial / _PLAN_FILE
    if plan_file.exists():
        _check_same(partial, json.loads(plan_file.read_text(encoding="utf-8")), plan)
    write_atomically(plan_file, json.dumps(plan))
    steps = itertools.chain([first], steps)
    result = _write(partial, info, split, shard_steps, steps, report)
    # What killed runs have left goes too.
    for file in (plan_file, *partial.glob("*.array_record.*")):
        file.unlink()
    partial.rename(final)
    return result


def _write(
    folder: pathlib.Path,
    info: TaskInfo,
    split: str,
    shard_steps: int,
    steps: Iterator[TaskStep],
    report: Callable[[int], None],
) -> CacheInfo:
    """Writes and checks all files of a cache; those that are there already stay."""
    digest = hashlib.sha256()
    actions: list[np.ndarray] = []
    states: list[np.ndarray] = []
    texts: set[str] = set()
    targets: set[str] = set()
    episodes, shards = 0, 0
    while (head := next(steps, None)) is not None:
        block = itertools.chain([head], itertools.islice(steps, shard_steps - 1))
        with _new_shard(folder / shard_file(shards)) as write:
            for step in block:
                step.check(info)
                record = step.pack()
                write(record)
                _update(digest, record)
                actions.append(step.action)
                states.append(step.state)
                episodes += step.step == 0
                texts.add(step.text)
                targets.add(step.target)
                report(len(actions))
        texts, targets = _longest(texts), _longest(targets)
        shards += 1
    files = [folder / shard_file(i) for i in range(shards)]
    _check_written(files, digest.hexdigest())
    statistics = None
    if info.robot:
        robot = info.robot
        statistics = compute_statistics(robot.action_space, robot.embodiment, actions)
    np.save(folder / ACTIONS_FILE, np.stack(actions))
    np.save(folder / STATES_FILE, np.stack(states))
    result = CacheInfo(
        task=info,
        split=split,
        steps=len(actions),
        episodes=episodes,
        shard_steps=shard_steps,
        shard_bytes=tuple(file.stat().st_size for file in files),
        hash=digest.hexdigest(),
        longest_texts=tuple(sorted(texts)),
        longest_targets=tuple(sorted(targets)),
        statistics=statistics,
    )
    write_atomically(folder / INFO_FILE, json.dumps(result.to_json(), indent=1) + "\n")
    return result


def read_steps(task: seqio.Task, split: str, *, seed: int | None = None) -> Iterator[TaskStep]:
    """The steps of a registered task in order, unchecked; with a seed its files in another order.

    Raises:
      ValueError: TensorFlow cannot read them, or the steps of an episode are not one after the
        other from 0 on.
    """
    source = task.source.get_dataset(split, shuffle=seed is not None, seed=seed)
    dataset = task.preprocess_precache(source)
    before: tuple[int, int] | None = None
    try:
        for values in dataset.as_numpy_iterator():
            step = TaskStep(
                images=tuple(values["images"]),
                text=values["text"].decode(),
                target=values["target"].decode(),
                action=values["action"],
                state=values["state"],
                episode=int(values["episode"]),
                step=int(values["step"]),
                episode_id=values["episode_id"].decode(),
            )
            here = (step.episode, step.step)
            follows = before is not None and here == (before[0], before[1] + 1)
            begins = step.step == 0 and (before is None or step.episode != before[0])
            if not follows and not begins:
                raise ValueError(
                    f"task {task.name!r}: found episode {here[0]} step {here[1]} after {before}; "
                    "expected the steps of each episode one after the other, from 0 on"
                )
            yield step
            before = here
    except tf.errors.OpError as error:
        line = _IN_GRAPH.sub("", error.message.strip().splitlines()[0])
        raise ValueError(f"task {task.name!r}, split {split!r}: cannot be read: {line}") from error


def _longest(texts: set[str]) -> set[str]:
    return set(heapq.nlargest(_LONGEST, texts, key=lambda text: (len(text), text)))


def _update(digest: hashlib._Hash, record: bytes) -> None:
    digest.update(len(record).to_bytes(8, "little") + record)


@contextlib.contextmanager
def _new_shard(file: pathlib.Path) -> Iterator[Callable[[bytes], None]]:
    """Takes a file's records; it appears whole at the end. One that is there already stays."""
    if file.exists():
        yield lambda record: None
        return
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    # One record to a group: training reads single steps in any order.
    writer = ArrayRecordWriter(str(unfinished), "group_size:1")
    try:
        yield writer.write
    except BaseException:
        writer.close()
        unfinished.unlink()
        raise
    writer.close()
    unfinished.replace(file)


def _check_written(files: list[pathlib.Path], expected: str) -> None:
    digest = hashlib.sha256()
    try:
        for file in files:
            with ArrayRecordDataSource(str(file)) as source:
                for i in range(len(source)):
                    _update(digest, source[i])
    except Exception as error:  # ArrayRecord has no error class of its own
        raise ValueError(f"{file}: damaged ({error}); delete it and run again") from error
    if digest.hexdigest() != expected:
        raise ValueError(
            f"{files[0].parent}: its files, of an interrupted run, hold other steps than the "
            "source gives now; delete the folder and run again"
        )


def _check_same(directory: pathlib.Path, found: dict, wanted: dict) -> None:
    lines = differences(found, wanted)
    if lines:
        raise ValueError(
            f"{directory} holds another cache than the one asked for: {'; '.join(lines)}. Nothing "
            "was changed; cache into another folder, or delete that one"
        )


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a file that is there whole or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
