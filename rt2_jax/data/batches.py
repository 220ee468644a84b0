"""Training batches in an order that nothing but seed, mixture, batch size and step decides."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import grain
import numpy as np

from rt2_jax.data.examples import TaskExamples

_ENDLESS = 2**62


def train_batches(
    examples: Sequence[TaskExamples],
    shares: Sequence[float],
    *,
    seed: int,
    global_batch_size: int,
    start_step: int = 0,
    host: int = 0,
    hosts: int = 1,
    workers: int = 0,
) -> grain.IterDataset:
    """This host's part of every global batch from `start_step` on, without end.

    The global batch of step s is a function of (seed, examples, shares, global batch size, s). Host
    h of H reads the h-th of H equal blocks of it. Call `close()` on the iterator when done.

    Args:
      examples: of each task, from `mixture_examples`.
      shares: of the tasks in a batch, positive; kept to within a hundredth of the least.
      seed: of order and augmentation, 0 to 2**32 - 1.
      global_batch_size: over all hosts.
      start_step: the first step's number.
      host: this host's number.
      hosts: how many there are.
      workers: processes that make examples, 0 for none. Programs that start workers need the guard
        `if __name__ == "__main__"`, as all that start processes.

    Returns:
      An iterable of dicts of arrays [global_batch_size / hosts, ...], see `TaskExamples.example`.

    Raises:
      ValueError: the batch size is no multiple of `hosts`, or a number is out of its range.
    """
    if global_batch_size < 1 or hosts < 1 or global_batch_size % hosts:
        raise ValueError(
            f"global_batch_size: found {global_batch_size} for {hosts} hosts, expected a multiple"
        )
    if not 0 <= host < hosts or start_step < 0 or workers < 0:
        raise ValueError(
            f"found host {host} of {hosts}, start_step {start_step}, workers {workers}; expected "
            "a host below their number, and nothing negative"
        )
    parts = [
        grain.MapDataset.source(_Indices(i, len(task))).shuffle(seed=(seed + i) % 2**32).repeat()
        for i, task in enumerate(examples)
    ]
    mixed = grain.MapDataset.mix(parts, weights=list(shares)).seed(seed)
    whole = mixed.random_map(_MakeExample(examples))
    block = _HostBlocks(whole, global_batch_size, host, hosts, start_step)
    dataset = block.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    if workers:
        _parse_flags()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        dataset = dataset.mp_prefetch(options)
    # After the workers: each of them would batch its own share of the examples.
    return dataset.batch(global_batch_size // hosts, drop_remainder=True)


class MixtureBatches:
    """A run's batches: `train_batches` that say where they are and can be sent there.

    Args:
      examples: of each task, from `mixture_examples`.
      shares: of the tasks in a batch.
      seed: of order and augmentation.
      global_batch_size: over all hosts.
      manifest_hash: of the mixture, `Manifest.hash`.
      host: this host's number.
      hosts: how many there are.
      workers: processes that make examples. With 0 a thread makes the next batch while the one
        before is used.

    Raises:
      ValueError: as `train_batches`.
    """

    def __init__(
        self,
        examples: Sequence[TaskExamples],
        shares: Sequence[float],
        *,
        seed: int,
        global_batch_size: int,
        manifest_hash: str,
        host: int = 0,
        hosts: int = 1,
        workers: int = 0,
    ) -> None:
        self._source = lambda step: train_batches(
            examples,
            shares,
            seed=seed,
            global_batch_size=global_batch_size,
            start_step=step,
            host=host,
            hosts=hosts,
            workers=workers,
        )
        self._identity = {
            "seed": seed,
            "global_batch_size": global_batch_size,
            "manifest": manifest_hash,
        }
        self._step = 0
        self._iterator: Any = None
        self._ahead = 0 if workers else 2
        self._source(0)  # so that wrong numbers are refused here

    def __next__(self) -> Mapping[str, np.ndarray]:
        if self._iterator is None:
            dataset = self._source(self._step)
            if self._ahead:
                dataset = grain.experimental.ThreadPrefetchIterDataset(
                    dataset, prefetch_buffer_size=self._ahead
                )
            self._iterator = iter(dataset)
        batch = next(self._iterator)
        self._step += 1
        return batch

    def __iter__(self) -> Iterator[Mapping[str, np.ndarray]]:
        return self

    def __enter__(self) -> MixtureBatches:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops workers and threads; the next batch starts them again."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None and hasattr(iterator, "close"):
            iterator.close()

    def get_state(self) -> dict[str, Any]:
        """The number of the next batch, with what decides its content."""
        return {"step": self._step, **self._identity}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to the batch of a state.

        Raises:
          ValueError: the state is of other data: another seed, batch size or mixture.
        """
        lines = [
            f"{name}: the checkpoint has {state.get(name)!r}, this run {value!r}"
            for name, value in self._identity.items()
            if state.get(name) != value
        ]
        if lines or not isinstance(state.get("step"), int):
            raise ValueError(
                "the data is not that of the checkpoint, so its batches would be others: "
                + ("; ".join(lines) or f"found no step in {dict(state)}")
            )
        self.close()
        self._step = state["step"]


class _Indices:
    """(task, step) of every step of a task; the step is read where the example is made."""

    def __init__(self, task: int, length: int) -> None:
        self._task = task
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> tuple[int, int]:
        return self._task, int(index)


class _MakeExample(grain.transforms.RandomMap):
    def __init__(self, examples: Sequence[TaskExamples]) -> None:
        self._examples = examples

    def random_map(
        self, element: tuple[int, int], rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        task, step = element
        return self._examples[task].example(step, rng)


class _HostBlocks(grain.MapDataset):
    """Host h's blocks of the global batches, one after the other, as one endless data set."""

    def __init__(
        self, parent: grain.MapDataset, batch: int, host: int, hosts: int, start_step: int
    ) -> None:
        super().__init__(parent)
        self._batch = batch
        self._block = batch // hosts
        self._first = start_step * batch + host * self._block

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        step, position = divmod(index, self._block)
        return self._parent[self._first + step * self._batch + position]


def _parse_flags() -> None:
    """Grain's workers read absl's flags, which a program without absl's `run` never parses."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(sys.argv[:1])
