"""Batches of a mixture of which some tasks are not cached."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from rt2_jax.data.batches import MixtureBatches, shuffled_examples
from rt2_jax.data.examples import TaskExamples
from rt2_jax.data.mixture_order import source_seed
from rt2_jax.data.step_stream import StepStream

_LOG = logging.getLogger(__name__)
Example = dict[str, np.ndarray]


class StreamedBatches(MixtureBatches):
    """As `MixtureBatches`, with tasks that are read through SeqIO while the run trains.

    Shares stay exact, and cached tasks keep their order. Uncached ones are shuffled over a buffer.
    After a restart they begin with another order, and another number of hosts gives them other
    examples; the log says so.

    Args:
      streams: of the uncached tasks, by name.
      shuffle_buffer: examples of each uncached task that are held in memory to draw from.
      args: as those of `MixtureBatches`, but without workers.
      options: as those of `MixtureBatches`, but without workers.
    """

    def __init__(
        self,
        streams: Mapping[str, StepStream],
        *args: Any,
        shuffle_buffer: int = 512,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._streams = dict(streams)
        self._shuffle_buffer = shuffle_buffer
        _LOG.warning(
            "%s: not cached, read through SeqIO; a restart will not go on exactly where it was",
            ", ".join(self._streams),
        )

    def _open(self) -> Iterator[Example]:
        """The batches from the present step on, one of them made ahead."""
        with ThreadPoolExecutor(1) as thread:
            batches = self._made(self._step)
            following = thread.submit(next, batches)
            while True:
                batch = following.result()
                following = thread.submit(next, batches)
                yield batch

    def _made(self, begin: int) -> Iterator[Example]:
        parts = {
            source: shuffled_examples(task, self._seed)
            for source, task in enumerate(self._examples)
            if task.name not in self._streams
        }
        streams = {
            source: self._streamed(self._streams[task.name], task, begin)
            for source, task in enumerate(self._examples)
            if task.name in self._streams
        }
        for step in itertools.count(begin - self._start.step):
            first = step * self._global_batch_size
            rows = []
            for row in self._rows:
                source, number = self._order[first + int(row)]
                rows.append(next(streams[source]) if source in streams else parts[source][number])
            yield {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _streamed(self, stream: StepStream, task: TaskExamples, begin: int) -> Iterator[Example]:
        """Examples in the stream's order, drawn from a buffer."""
        # The order of episodes is common to all hosts, which share them out by it.
        seed = source_seed(self._seed, task.name, f"from step {begin}")
        stream.begin(seed=seed, host=self._host, hosts=self._hosts)
        rng = np.random.default_rng((seed, self._host))
        buffer: list[Example] = []
        for number in itertools.count():
            example = task.example(number, rng)
            stream.forget(number + 1 - task.history)
            if len(buffer) < self._shuffle_buffer:
                buffer.append(example)
                continue
            chosen = rng.integers(self._shuffle_buffer)
            buffer[chosen], example = example, buffer[chosen]
            yield example
