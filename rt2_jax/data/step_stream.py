"""The steps of a task without a cache: read through SeqIO while a run trains."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator

import numpy as np
import seqio

from rt2_jax.actions.identity import differences
from rt2_jax.data.cache import CacheInfo
from rt2_jax.data.instructions import InstructionTable
from rt2_jax.data.mixture_order import ENDLESS, source_seed
from rt2_jax.data.registration import step_format
from rt2_jax.data.step import TaskStep
from rt2_jax.data.step_reader import read_shard, read_steps
from rt2_jax.data.task_info import TaskInfo

_LOOKED_AT = 100


class StepStream:
    """A task's steps by number as from a cache, but in one direction only, and without end.

    Every epoch reads the source's shards in another order. What is promised is less than with a
    cache: a restart does not go on where it was, and another number of hosts gives other batches.

    Args:
      info: what the manifest says of the task.
      split: of the task.

    Attributes:
      info: as a cache's; its longest texts and targets are those of the first hundred steps.

    Raises:
      KeyError: no such task is registered.
      ValueError: the registered task declares something else, or its first steps cannot be used.
    """

    def __init__(self, info: TaskInfo, split: str) -> None:
        if info.name not in seqio.TaskRegistry.names():
            raise KeyError(
                f"task {info.name!r} is not cached, so it is read through SeqIO, but it is not "
                "registered: name the module that does so, --module my_tasks (of built-in ones: "
                "--module rt2_jax.tasks.mixtures)"
            )
        self._task = seqio.TaskRegistry.get(info.name)
        declared = step_format(self._task).info
        if lines := differences(info.to_json(), declared.to_json()):
            raise ValueError(
                f"task {info.name!r} has changed since its mixture was resolved "
                f"({'; '.join(lines)}): resolve it again"
            )
        first = list(itertools.islice(read_steps(self._task, split), _LOOKED_AT))
        if not first:
            raise ValueError(f"task {info.name!r}, split {split!r}: there are no steps")
        for step in first:
            step.check(info)
        self._first_actions = np.stack([step.action for step in first])
        texts = tuple(sorted({step.text for step in first}))
        targets = tuple(sorted({step.target for step in first}))
        self.info = CacheInfo(info, split, 0, 0, 1, (), (), "", texts, targets, None)
        self.begin(seed=0)

    def begin(self, *, seed: int, host: int = 0, hosts: int = 1) -> None:
        """Starts anew: step 0 is the first of this host's episodes in an order of this seed."""
        self._first = 0
        self._window: collections.deque[TaskStep] = collections.deque()
        self._steps = self._endless(seed, host, hosts)

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> TaskStep:
        """A step that was not forgotten. Raises ValueError if it cannot be used."""
        if index < self._first:
            raise IndexError(f"step {index} of task {self.info.task.name!r} was forgotten")
        while index >= self._first + len(self._window):
            step = next(self._steps)
            step.check(self.info.task)
            self._window.append(step)
        return self._window[index - self._first]

    def forget(self, before: int) -> None:
        """Frees the memory of the steps before this one."""
        while self._window and self._first < before:
            self._window.popleft()
            self._first += 1

    def actions(self) -> np.ndarray:
        """The actions of the first hundred steps, float32 [100, D], native units."""
        return self._first_actions

    def instructions(self) -> InstructionTable | None:
        """None where the task has no vectors of its instructions.

        Raises:
          ValueError: it has some; which ones is known of a cache alone.
        """
        if self.info.task.instruction_encoder is None:
            return None
        raise ValueError(
            f"task {self.info.task.name!r} is not cached, so its instructions' vectors are not "
            "known before it is read; cache it"
        )

    def _endless(self, seed: int, host: int, hosts: int) -> Iterator[TaskStep]:
        name, split = self.info.task.name, self.info.split
        shards = len(self._task.source.list_shards(split))
        shared = shards < hosts  # then every host reads everything and keeps its episodes
        for epoch in itertools.count():
            rng = np.random.default_rng(source_seed(seed, name, f"epoch {epoch}"))
            order = [s for s in rng.permutation(shards).tolist() if shared or s % hosts == host]
            episode, found = -1, False
            for shard in order:
                for step in read_shard(self._task, split, shard, shards):
                    episode += step.step == 0
                    if not shared or episode % hosts == host:
                        found = True
                        yield step
            if not found:
                raise ValueError(
                    f"task {name!r} has too few episodes for each of {hosts} hosts; cache it"
                )
