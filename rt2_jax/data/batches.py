"""Training batches in an order that nothing but seed, mixture, batch size and step decides."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import grain
import numpy as np

from rt2_jax.actions.identity import check_keys
from rt2_jax.data.examples import TaskExamples
from rt2_jax.data.manifest import Manifest
from rt2_jax.data.mixture_order import ENDLESS, MixtureOrder, source_seed

VERSION = 2  # of the order: batches of the same numbers are other ones in other versions
_LOG = logging.getLogger(__name__)
_ADVICE = ". RunConfig.may_change_data = True goes on with this run's data, each task where it was"


@dataclass(frozen=True)
class Start:
    """Where the order of a mixture begins: at the beginning, or where another mixture was left.

    Attributes:
      step: the first step of this mixture.
      taken: task -> how many of its examples were taken before; 0 of those not named.
    """

    step: int = 0
    taken: Mapping[str, int] = field(default_factory=dict)

    def order(self, names: Sequence[str], shares: Sequence[float]) -> MixtureOrder:
        """The order from `step` on."""
        return MixtureOrder(shares, [self.taken.get(name, 0) for name in names])


def train_batches(
    examples: Sequence[TaskExamples],
    shares: Sequence[float],
    *,
    seed: int,
    global_batch_size: int,
    start_step: int = 0,
    start: Start = Start(),
    host: int = 0,
    hosts: int = 1,
    rows: Sequence[int] | None = None,
    workers: int = 0,
) -> grain.IterDataset:
    """This host's part of every global batch from `start_step` on, without end.

    The global batch of step s is a function of (seed, examples, shares, global batch size, start,
    s). Which examples of a task come in which order, and how each is augmented, is a function of
    (seed, the task's name, how many came before) alone, so it is the same in every mixture. Host h
    of H reads the h-th of H equal blocks of a batch, or the rows given. Call `close()` on the
    iterator when done.

    Args:
      examples: of each task, from `mixture_examples`.
      shares: of the tasks in a batch, positive; see `MixtureOrder`.
      seed: of order and augmentation.
      global_batch_size: over all hosts.
      start_step: the first step's number, `start.step` or later.
      start: where the mixture's order begins.
      host: this host's number.
      hosts: how many there are.
      rows: which of a global batch this host reads, where that is no block of its own.
      workers: processes that make examples, 0 for none. Programs that start workers need the guard
        `if __name__ == "__main__"`, as all that start processes.

    Returns:
      An iterable of dicts of arrays [global_batch_size / hosts, ...] or [len(rows), ...], see
      `TaskExamples.example`.

    Raises:
      ValueError: the batch size is no multiple of `hosts`, or a number is out of its range.
    """
    _check_numbers(global_batch_size, start_step, start, host, hosts, workers)
    rows = host_rows(global_batch_size, host, hosts) if rows is None else rows
    names = [task.name for task in examples]
    parts = [shuffled_examples(task, seed) for task in examples]
    mixed = grain.MapDataset.select_from_datasets(parts, start.order(names, shares))
    first = (start_step - start.step) * global_batch_size
    mine = _HostRows(mixed, global_batch_size, rows, first)
    batches = mine.batch(len(rows), drop_remainder=True)
    dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    if workers:
        _parse_flags()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        dataset = dataset.mp_prefetch(options)  # whole batches, in turn
    return dataset


def host_rows(global_batch_size: int, host: int, hosts: int) -> range:
    """The h-th of H equal blocks of a global batch."""
    block = global_batch_size // hosts
    return range(host * block, (host + 1) * block)


def shuffled_examples(task: TaskExamples, seed: int) -> grain.MapDataset:
    """A task's examples by how many came before, without end: each epoch in an order of its own."""
    return _shuffled_numbers(task, seed).random_map(
        _MakeExample(task), seed=source_seed(seed, task.name, "augmentation")
    )


def _shuffled_numbers(task: TaskExamples, seed: int) -> grain.MapDataset:
    """Which example of a task it is, by how many came before."""
    shuffled = grain.MapDataset.range(len(task)).shuffle(seed=source_seed(seed, task.name, "order"))
    return shuffled.repeat()


def _check_numbers(
    global_batch_size: int, start_step: int, start: Start, host: int, hosts: int, workers: int
) -> None:
    if global_batch_size < 1 or hosts < 1 or global_batch_size % hosts:
        raise ValueError(
            f"global_batch_size: found {global_batch_size} for {hosts} hosts, expected a multiple"
        )
    if not 0 <= host < hosts or start_step < start.step or workers < 0:
        raise ValueError(
            f"found host {host} of {hosts}, start_step {start_step}, workers {workers}; expected "
            f"a host below their number, a step from {start.step} on, and nothing negative"
        )


class MixtureBatches:
    """A run's batches: `train_batches` that say where they are and can be sent there.

    Args:
      manifest: of the mixture.
      examples: of each of its tasks, from `mixture_examples`.
      seed: of order and augmentation.
      global_batch_size: over all hosts.
      may_change: whether `set_state` goes on from the state of another mixture or batch size.
      host: this host's number.
      hosts: how many there are.
      rows: which of a global batch this host reads; by default the host's block.
      workers: processes that make examples. With 0 a thread makes the next batch while the one
        before is used.

    Raises:
      ValueError: as `train_batches`.
    """

    def __init__(
        self,
        manifest: Manifest,
        examples: Sequence[TaskExamples],
        *,
        seed: int,
        global_batch_size: int,
        may_change: bool = False,
        host: int = 0,
        hosts: int = 1,
        rows: Sequence[int] | None = None,
        workers: int = 0,
    ) -> None:
        _check_numbers(global_batch_size, 0, Start(), host, hosts, workers)
        self._caches = {task.info.name: task.cache_hash for task in manifest.tasks}
        self._shares = [task.share for task in manifest.tasks]
        self._examples = list(examples)
        self._seed, self._global_batch_size = seed, global_batch_size
        self._host, self._hosts, self._workers = host, hosts, workers
        self._rows = host_rows(global_batch_size, host, hosts) if rows is None else rows
        self._data = {"manifest": manifest.hash, "global_batch_size": global_batch_size}
        self._may_change = may_change
        self._step = 0
        self._iterator: Any = None
        self._begin(Start())

    def _begin(self, start: Start) -> None:
        self._start = start
        self._order = start.order(tuple(self._caches), self._shares)

    def _open(self) -> Iterator[Mapping[str, np.ndarray]]:
        """The batches from the present step on."""
        dataset = train_batches(
            self._examples,
            self._shares,
            seed=self._seed,
            global_batch_size=self._global_batch_size,
            start_step=self._step,
            start=self._start,
            rows=self._rows,
            workers=self._workers,
        )
        if not self._workers:
            dataset = grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=2)
        return iter(dataset)

    def __next__(self) -> Mapping[str, np.ndarray]:
        if self._iterator is None:
            self._iterator = self._open()
        try:
            batch: Mapping[str, np.ndarray] = next(self._iterator)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            raise ChildProcessError(
                f"a data worker has ended before batch {self._step} was made (killed, or out of "
                f"memory?): {' '.join(str(error).split())[:200]}"
            ) from error
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

    def taken(self) -> dict[str, int]:
        """How many examples of each task were in all batches so far, whoever took them."""
        place = (self._step - self._start.step) * self._global_batch_size
        counts = self._order.taken(place).tolist()
        return dict(zip(self._caches, counts, strict=True))

    def examples_of(self, step: int) -> list[tuple[int, int]]:
        """(number of the task, number of its example) of every row of a step's global batch.

        Args:
          step: of this mixture: where the data changed, or later.
        """
        orders = [_shuffled_numbers(task, self._seed) for task in self._examples]
        first = (step - self._start.step) * self._global_batch_size
        places = [self._order[first + row] for row in range(self._global_batch_size)]
        return [(source, int(orders[source][number])) for source, number in places]

    def get_state(self) -> dict[str, Any]:
        """The number of the next batch, with what decides its content, as plain JSON."""
        return {
            "version": VERSION,
            "step": self._step,
            "seed": self._seed,
            **self._data,
            "start": {"step": self._start.step, "taken": dict(self._start.taken)},
            "taken": self.taken(),
            "caches": dict(self._caches),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes to the batch of a state.

        From another mixture or batch size (`may_change`), each task goes on where it was: its next
        examples are those that the other mixture would have given. A task that was not in the other
        mixture begins at its beginning, and so does one whose cache is another; the log says which.

        Raises:
          ValueError: it is no state, or one of another seed; or of another mixture or batch size
            and that was not allowed. Nothing has changed then.
        """
        if state.get("version") != VERSION:
            raise ValueError(
                f"the checkpoint's data have an order of version {state.get('version')}, this code "
                f"has {VERSION}: go on with the release that wrote it, or begin a run with it as "
                "initial checkpoint"
            )
        check_keys("the data's state in the checkpoint", state, tuple(self.get_state()))
        wanted = {"seed": self._seed, **({} if self._may_change else self._data)}
        lines = [
            f"{name}: the checkpoint has {state[name]!r}, this run {value!r}"
            for name, value in wanted.items()
            if state[name] != value
        ]
        if lines:
            raise ValueError(
                "the data is not that of the checkpoint, so its batches would be others: "
                + "; ".join(lines)
                + ("" if self._may_change else _ADVICE)
            )
        self.close()
        self._step = state["step"]
        if all(state[name] == value for name, value in self._data.items()):
            self._begin(Start(**state["start"]))
        else:
            self._begin(Start(self._step, self._continued(state)))

    def _continued(self, state: Mapping[str, Any]) -> dict[str, int]:
        """The counts of the tasks that go on, with a line in the log for every task."""
        counts = {}
        lines = [f"the data change at step {state['step']}:"]
        for name in sorted({*self._caches, *state["caches"]}):
            if name not in self._caches:
                lines.append(f"task {name!r} ends after {state['taken'][name]} examples")
            elif name not in state["caches"]:
                lines.append(f"task {name!r} begins")
            elif self._caches[name] is None:
                lines.append(f"task {name!r} is not cached and begins with another order")
            elif self._caches[name] != state["caches"][name]:
                lines.append(f"task {name!r} has another cache and begins anew")
            else:
                counts[name] = state["taken"][name]
                lines.append(f"task {name!r} goes on after {counts[name]} examples")
        _LOG.warning("\n  ".join(lines))
        return counts


class _MakeExample(grain.transforms.RandomMap):
    def __init__(self, task: TaskExamples) -> None:
        self._task = task

    def random_map(self, element: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self._task.example(element, rng)


class _HostRows(grain.MapDataset):
    """A host's rows of the global batches, one after the other, as one endless data set."""

    def __init__(
        self, parent: grain.MapDataset, batch: int, rows: Sequence[int], first: int
    ) -> None:
        super().__init__(parent)
        self._batch, self._first = batch, first
        self._rows = [int(row) for row in rows]

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        step, position = divmod(index, len(self._rows))
        return self._parent[self._first + step * self._batch + self._rows[position]]


def _parse_flags() -> None:
    """Grain's workers read absl's flags, which a program without absl's `run` never parses."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(sys.argv[:1])
