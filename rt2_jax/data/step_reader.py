"""The steps of a registered task as SeqIO gives them: source shard by source shard."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterator

import seqio
import tensorflow as tf

from rt2_jax.data.step import TaskStep

# What TensorFlow puts before the message of an error in a task's own code.
_IN_GRAPH = re.compile(r"^(\{\{function_node .*?\}\} )?(\w+Error: )?")


def read_steps(task: seqio.Task, split: str) -> Iterator[TaskStep]:
    """The steps of a task in order, unchecked: those that a cache of it would hold.

    Raises:
      FileNotFoundError: the data are not on this disk.
      ValueError: TensorFlow cannot read them, or the steps of an episode are not one after the
        other from 0 on.
    """
    shards = len(task.source.list_shards(split))
    before, last = 0, -1  # episodes of the shards before, and the last one's number
    for shard in range(shards):
        for step in read_shard(task, split, shard, shards):
            last = before + step.episode
            yield dataclasses.replace(step, episode=last)
        before = last + 1


def read_shard(task: seqio.Task, split: str, shard: int, shards: int) -> Iterator[TaskStep]:
    """The steps of one shard of a task's source, unchecked; episodes count from 0 in it.

    The task's preprocessors see this shard alone, as in SeqIO's own caching, and draw random
    numbers that depend on the task, the split and the shard.

    Args:
      task: registered.
      split: of the task.
      shard: its place among those of `task.source.list_shards(split)`.
      shards: how many these are.

    Raises:
      FileNotFoundError, ValueError: as `read_steps`.
    """
    _keep_off_gpus()
    part = seqio.ShardInfo(shard, shards) if shards > 1 else None
    dataset = task.source.get_dataset(split, shuffle=False, shard_info=part)
    dataset = task.preprocess_precache(dataset, seed=_seed(f"{task.name} {split} {shard}"))
    before: tuple[int, int] | None = None
    episode = -1
    try:
        for values in dataset.as_numpy_iterator():
            # The source's own number of the episode tells where one ends, and no more.
            here = (int(values["episode"]), int(values["step"]))
            follows = before is not None and here == (before[0], before[1] + 1)
            begins = here[1] == 0 and (before is None or here[0] != before[0])
            if not follows and not begins:
                raise ValueError(
                    f"task {task.name!r}: found episode {here[0]} step {here[1]} after {before}; "
                    "expected the steps of each episode one after the other, from 0 on"
                )
            episode += begins
            before = here
            yield TaskStep(
                images=tuple(values["images"]),
                text=values["text"].decode(),
                target=values["target"].decode(),
                action=values["action"],
                state=values["state"],
                episode=episode,
                step=here[1],
                episode_id=values["episode_id"].decode(),
                instruction_embedding=values["instruction_embedding"],
                references=tuple(text.decode() for text in values["references"]),
            )
    except tf.errors.OpError as error:
        line = _IN_GRAPH.sub("", error.message.strip().splitlines()[0])
        raise ValueError(f"task {task.name!r}, split {split!r}: cannot be read: {line}") from error


@functools.cache
def _keep_off_gpus() -> None:
    """TensorFlow would take most of a GPU's memory, which training needs, or each other process."""
    with contextlib.suppress(RuntimeError):  # it runs already
        tf.config.set_visible_devices([], "GPU")


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")
