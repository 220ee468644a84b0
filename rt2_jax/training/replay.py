"""A step of a run once more, to find what made its loss or gradient not finite."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from flax.traverse_util import flatten_dict

from rt2_jax.data.batches import MixtureBatches
from rt2_jax.training.checkpoints import (
    PREFIX,
    check_optimizer,
    checkpoint_path,
    read_description,
    restore_state,
)
from rt2_jax.training.execution import first_state, restore_base
from rt2_jax.training.lora import BASE
from rt2_jax.training.run import Run
from rt2_jax.training.skipped import plain
from rt2_jax.training.step import make_gradients, make_train_step, weigh
from rt2_jax.training.train_state import TrainState

_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class SuspectExample:
    """An example of the batch that is not finite, or makes the gradient so.

    Attributes:
      row: of the global batch.
      identity: see `TaskExamples.identity`.
      loss: weighted, summed over its targets.
      features: name -> how many of its numbers are not finite.
      gradient: whether the gradient of a batch of it alone is not finite; None: not looked at.
    """

    row: int
    identity: Mapping[str, Any]
    loss: float
    features: Mapping[str, int]
    gradient: bool | None = None

    def text(self) -> str:
        """One line."""
        what = [f"loss {self.loss:.4g}"]
        what += [f"{count} numbers of {name} not finite" for name, count in self.features.items()]
        if self.gradient:
            what.append("its gradient alone is not finite")
        where = ", ".join(f"{name} {value!r}" for name, value in self.identity.items())
        return f"row {self.row}: {where}: {'; '.join(what)}"


@dataclasses.dataclass(frozen=True)
class Replay:
    """What a step did when it was computed once more.

    Attributes:
      step: its number in `metrics.jsonl`, from 1; its batch is one less.
      start: the checkpoint whose parameters it had, or None: those that the run began with.
      start_step: of these parameters.
      exact: whether these are the parameters that the run had at this step.
      loss: as it is minimised.
      gradient_norm: global, before clipping.
      sources: name -> (examples in the batch, how many of them have a loss that is not finite).
      examples: those that are not finite.
      gradients: path -> (numbers that are not finite, numbers), of the parameters that have some.
      parameters: how many parameters (arrays) train.
    """

    step: int
    start: pathlib.Path | None
    start_step: int
    exact: bool
    loss: float
    gradient_norm: float
    sources: Mapping[str, tuple[int, int]]
    examples: Sequence[SuspectExample]
    gradients: Mapping[str, tuple[int, int]]
    parameters: int

    @property
    def finite(self) -> bool:
        """Whether the step would be taken."""
        return bool(np.isfinite(self.loss) and np.isfinite(self.gradient_norm))

    def text(self) -> str:
        """For a person to read."""
        start = self.start or "the parameters that the run began with"
        lines = [
            f"step {self.step} (batch {self.step - 1}) with {start}"
            + ("" if self.exact else f", {self.step - 1 - self.start_step} steps before it"),
            f"loss {plain(self.loss)}, gradient norm {plain(self.gradient_norm)}: "
            + ("finite, the step would be taken" if self.finite else "the step is skipped"),
        ]
        for name, (count, bad) in self.sources.items():
            lines.append(f"source {name}: {count} examples, the loss of {bad} is not finite")
        lines += [each.text() for each in self.examples[:_SHOWN]]
        lines += _more(len(self.examples), "examples")
        if self.gradients:
            lines.append(
                f"gradients: {len(self.gradients)} of {self.parameters} parameters are not finite"
            )
            lines += [
                f"  {name}: {bad:,} of {size:,} numbers"
                for name, (bad, size) in list(self.gradients.items())[:_SHOWN]
            ]
            lines += _more(len(self.gradients), "parameters")
        if not self.finite and not self.examples:
            lines.append("no example does it alone: look at the learning rate and the steps before")
        if self.finite and not self.exact:
            lines.append(
                "the batch is sound with these parameters; to have those of the step, take the "
                "steps in between too: --replay-exactly"
            )
        return "\n".join(lines)


@struct.dataclass
class _Finding:
    """Of a batch: loss and norm [], loss of every example [B], bad numbers by feature [B]."""

    loss: jax.Array
    norm: jax.Array
    losses: jax.Array
    features: Any
    gradients: Any


def replay(run: Run, step: int, exactly: bool = False) -> Replay:
    """Computes a step's loss and gradient once more; nothing is written.

    Args:
      run: from `prepare`, of the same gin files.
      step: its number in `metrics.jsonl` and `skipped_steps.jsonl`, from 1.
      exactly: takes the steps from the checkpoint to this one too; without it the step has the
        parameters of the nearest checkpoint at or before it.

    Raises:
      FileNotFoundError: the checkpoint is not whole.
      ValueError: there is no such step, the checkpoint is of another run, or the batch cannot be
        made again: its tasks are not cached.
    """
    batch_number, directory = step - 1, pathlib.Path(run.config.model_dir)
    if step < 1:
        raise ValueError(f"--replay: found {step}, expected a step from 1")
    uncached = [task.info.name for task in run.manifest.tasks if task.cache_hash is None]
    if uncached:
        raise ValueError(
            f"--replay: {', '.join(uncached)} are not cached, so their batches cannot be made "
            "again; cache them"
        )
    start = _nearest(directory, batch_number)
    partitioner, config = run.partitioner, run.config
    rng = jax.random.fold_in(jax.random.key(config.loop.seed), 1)  # as `train` has it
    with run.batches() as batches:
        state, dataset = _state(run, start)
        start_step = int(state.step)
        if dataset is not None:
            batches.set_state(dataset)
        if exactly and start_step < batch_number:
            train_step = make_train_step(
                run.model,
                run.initializer,
                partitioner,
                config.learning_rate,
                run.rules,
                config.step,
            )
            for _ in range(batch_number - start_step):
                state, _ = train_step(state, partitioner.to_devices(next(batches)), rng)
        else:
            batches.set_state({**batches.get_state(), "step": batch_number})
        identities = _identities(run, batches, batch_number)
        batch = partitioner.to_devices(next(batches))
    look = _look(run)
    key = jax.random.fold_in(rng, batch_number)
    found = look(state.params, batch, key)
    features = {name: counts for name, counts in found.features.items() if counts.any()}
    bad = ~np.isfinite(found.losses) | np.any([each > 0 for each in features.values()], axis=0)
    alone: list[int] = []
    if not np.isfinite(found.norm) and not bad.any():
        alone = _alone(lambda rows: look(state.params, _rows(run, batch, rows), key), len(bad))
    examples = [
        SuspectExample(
            row,
            identities[row],
            float(found.losses[row]),
            {name: int(counts[row]) for name, counts in features.items() if counts[row]},
            True if row in alone else None,
        )
        for row in range(len(bad))
        if bad[row] or row in alone
    ]
    names = [each["task"] for each in identities]
    unsound = ~np.isfinite(found.losses)
    gradients = flatten_dict(found.gradients, sep="/")
    sizes = flatten_dict(run.initializer.abstract.params, sep="/")
    return Replay(
        step=step,
        start=start,
        start_step=start_step,
        exact=exactly or start_step == batch_number,
        loss=float(found.loss),
        gradient_norm=float(found.norm),
        sources={
            name: (
                names.count(name),
                sum(bool(unsound[row]) for row, each in enumerate(names) if each == name),
            )
            for name in dict.fromkeys(names)
        },
        examples=examples,
        gradients={
            name: (int(count), sizes[name].size) for name, count in gradients.items() if count
        },
        parameters=len(gradients),
    )


def _nearest(directory: pathlib.Path, batch: int) -> pathlib.Path | None:
    """The latest checkpoint at or before a batch; None: none, so the run's beginning."""
    numbers = [path.name.removeprefix(f"{PREFIX}_") for path in directory.glob(f"{PREFIX}_*")]
    steps = [int(number) for number in numbers if number.isdigit() and int(number) <= batch]
    return checkpoint_path(directory / f"{PREFIX}_{max(steps)}") if steps else None


def _state(run: Run, start: pathlib.Path | None) -> tuple[TrainState, Mapping[str, Any] | None]:
    """The state of a checkpoint with the data's position, or of the run's beginning."""
    base, description = restore_base(run)
    if start is None:
        return first_state(run, base), None
    description.check_same(
        read_description(start), str(start), may_change_data=run.config.may_change_data
    )
    check_optimizer(start, run.initializer)
    state, dataset = restore_state(start, run.initializer.abstract)
    if base is not None:
        state = dataclasses.replace(state, params={**state.params, BASE: base})
    return state, dataset


def _identities(run: Run, batches: MixtureBatches, batch: int) -> list[dict[str, Any]]:
    return [
        {"task": run.examples[source].name, **run.examples[source].identity(index)}
        for source, index in batches.examples_of(batch)
    ]


def _look(run: Run) -> Callable[..., _Finding]:
    """(parameters, batch, the step's key) -> what is found, on the host."""
    gradients = make_gradients(run.model, run.initializer, run.rules, run.config.step)
    count = run.config.step.num_microbatches

    def look(params: Any, batch: Mapping[str, jax.Array], rng: jax.Array) -> _Finding:
        grads, loss, _ = gradients(params, batch, rng)
        weighed, _ = weigh(run.model, run.rules, batch)

        def losses(part: Mapping[str, jax.Array]) -> jax.Array:
            sums = run.model.example_sums(params, part, rng)
            return sums.cross_entropy + sums.z_loss

        # As the step does it: in parts, so that it fits where the step does.
        parts = jax.tree.map(
            lambda x: jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1), weighed
        )
        return _Finding(
            loss=loss,
            norm=optax.tree.norm(grads),
            losses=jnp.swapaxes(jax.lax.map(losses, parts), 0, 1).reshape(-1),
            features={
                name: jnp.sum(~jnp.isfinite(x), axis=tuple(range(1, x.ndim)))
                for name, x in batch.items()
                if jnp.issubdtype(x.dtype, jnp.floating)
            },
            gradients=jax.tree.map(lambda grad: jnp.sum(~jnp.isfinite(grad)), grads),
        )

    compiled = jax.jit(look, out_shardings=run.partitioner.replicated)

    def on_host(params: Any, batch: Any, rng: jax.Array) -> _Finding:
        with run.partitioner.active():
            found: _Finding = jax.device_get(compiled(params, batch, rng))
        return found

    return on_host


def _rows(run: Run, batch: Mapping[str, jax.Array], rows: Sequence[int]) -> Any:
    """A batch of these rows alone, over and over, of the same size."""
    size = len(next(iter(batch.values())))
    index = np.resize(np.asarray(rows), size)
    take = jax.jit(
        lambda batch: jax.tree.map(lambda x: x[index], batch),
        out_shardings=run.partitioner.batch_sharding,
    )
    return take(dict(batch))


def _alone(look: Callable[[Sequence[int]], _Finding], count: int) -> list[int]:
    """The rows whose gradient alone is not finite, found by halves."""
    found: list[int] = []
    left = [list(range(count))]
    while left:
        rows = left.pop()
        if np.isfinite(look(rows).norm):
            continue
        if len(rows) == 1:
            found += rows
        else:
            left += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return sorted(found)


def _more(count: int, what: str) -> list[str]:
    return [f"  and {count - _SHOWN} more {what}"] if count > _SHOWN else []
