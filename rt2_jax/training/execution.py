"""Doing a run that was prepared: from its latest checkpoint, or from the beginning, to the end."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rt2_jax.data.locks import only_writer
from rt2_jax.models.rt1.config import RT1Config
from rt2_jax.training.adapters import Adapters, params_hash
from rt2_jax.training.agreement import check_agreement, digests
from rt2_jax.training.checkpoints import (
    Checkpoints,
    check_optimizer,
    checkpoint_path,
    read_description,
    restore_params,
)
from rt2_jax.training.description import RunDescription
from rt2_jax.training.flops import model_flops
from rt2_jax.training.keeping import KeepBest
from rt2_jax.training.logs import JsonlLog, Log, TensorBoardLog
from rt2_jax.training.loop import Outcome, restore_or_init, train
from rt2_jax.training.lora import ADAPTERS, BASE, AdaptedModel, base_of
from rt2_jax.training.ordinal import order_action_tokens
from rt2_jax.training.resampling import restore_resampled
from rt2_jax.training.run import Run
from rt2_jax.training.run_config import RunConfig
from rt2_jax.training.run_length import write_run_length
from rt2_jax.training.skipped import SkippedSteps
from rt2_jax.training.step import make_train_step
from rt2_jax.training.train_state import TrainState
from rt2_jax.training.watching import Watch


def execute(
    run: Run,
    logs: Callable[[int], Sequence[Log]] = lambda start_step: (),
    *,
    begin: float | None = None,
    profile_steps: tuple[int, int] | None = None,
) -> Outcome:
    """Trains, from the latest checkpoint of `model_dir` or from the beginning, to the end.

    Args:
      run: from `prepare`.
      logs: gives more logs for a run that starts at this step.
      begin: when the program started, in seconds since 1970, for the ledger; None for now.
      profile_steps: a trace from when so many steps were taken until so many were, see `Profiler`.

    Raises:
      ValueError: the latest or the initial checkpoint is damaged, or the latest is of another run,
        or the hosts are not about to do the same; nothing was written.
      FileNotFoundError: the latest checkpoint is not whole.
      OSError: another process trains in `model_dir`.
      NotFiniteError: see `LoopConfig.max_skipped_in_a_row`.
    """
    config, directory = run.config, pathlib.Path(run.config.model_dir)
    check_agreement(
        digests(config, manifest=run.manifest.hash, vocabulary=run.description.tokenizer.hash)
    )
    before = _latest_in(directory)
    base, description = restore_base(run)
    if before is not None:
        description.check_same(
            read_description(before), str(before), may_change_data=config.may_change_data
        )
        check_optimizer(before, run.initializer)
    watch = Watch(
        directory,
        begin=begin,
        hang_timeout=config.loop.hang_timeout,
        profile_steps=profile_steps,
        # Of adapters alone nobody has counted what the backward pass needs.
        count_flops=None if config.lora else lambda: _flops(run),
    )
    step = make_train_step(
        run.model,
        run.initializer,
        run.partitioner,
        config.learning_rate,
        run.rules,
        config.step,
    )
    step.compile_ahead(run.initializer.abstract, run.batch)
    new = first_state(run, base) if before is None else None
    first = jax.process_index() == 0
    with (
        _only_run(directory) if first else contextlib.nullcontext(),
        run.batches() as batches,
        Checkpoints(directory, config.keep, config.keep_period, _keep_best(config)) as kept,
    ):
        state = new
        if state is None:
            state = restore_or_init(run.initializer, batches, kept, config.loop.seed)
            if base is not None:
                state = dataclasses.replace(state, params={**state.params, BASE: base})
        start = int(state.step)
        everything: list[Log] = []
        skipped = SkippedSteps(directory, start, run.rules.names) if first else None
        if first:
            write_run_length(directory, config.loop.total_steps)
            everything = [JsonlLog(directory / "metrics.jsonl", start), *logs(start)]
            if config.tensorboard:
                everything.append(TensorBoardLog(directory / "tensorboard", start))
        return train(
            config.loop,
            state,
            step,
            batches,
            run.partitioner,
            kept,
            description.to_json(),
            run.rules.names,
            everything,
            watch,
            skipped,
        )


def restore_base(run: Run) -> tuple[Any, RunDescription]:
    """With LoRA the base's parameters; and what the run's checkpoints say of themselves.

    Raises:
      FileNotFoundError, ValueError: the base is not there or damaged.
    """
    lora, checkpoint = run.config.lora, run.initial_checkpoint
    if lora is None:
        return None, run.description
    assert checkpoint is not None and isinstance(run.model, AdaptedModel)  # `prepare` saw to it
    base = restore_params(checkpoint, base_of(run.initializer.abstract.params))
    name = str(run.config.initial_checkpoint)
    adapters = Adapters(
        lora,
        run.model.layouts,
        name if name.startswith("pretrained:") else str(checkpoint),
        params_hash(base),
    )
    return base, dataclasses.replace(run.description, adapters=adapters)


def first_state(run: Run, base: Any) -> TrainState:
    """The state of a run that begins; with LoRA on this base, from `restore_base`."""
    abstract = run.initializer.abstract.params
    state = run.initializer.init(jax.random.key(run.config.loop.seed))
    if base is not None:
        state = dataclasses.replace(state, params={BASE: base, ADAPTERS: state.params[ADAPTERS]})
    elif run.initial_state is not None:
        state = run.initial_state.restore(state, run.initializer.abstract)
    elif run.initial_checkpoint is not None:
        params = restore_resampled(run.initial_checkpoint, run.config.model, abstract)
        state = dataclasses.replace(state, params=params)
    vocabulary = run.description.action_vocabulary
    if run.config.ordinal_action_tokens:
        config = run.config.model
        assert vocabulary is not None and not isinstance(config, RT1Config)  # `prepare` saw to it
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        order = jax.jit(
            lambda params: order_action_tokens(
                params, vocabulary.ids, config.text.embedding_stddev
            ),
            out_shardings=shardings,
            donate_argnums=0,
        )
        state = dataclasses.replace(state, params=order(state.params))
    return run.initializer.begin_ema(state)


def _flops(run: Run) -> float:
    """Of a step's forward and backward pass."""
    vocabulary, shapes = run.description.action_vocabulary, run.batch_shapes
    features = run.description.make_model().features.items()
    return model_flops(
        run.config.model,
        tuple((name, shapes[name], np.dtype(each[0]).name) for name, each in features),
        run.initializer.frozen,
        None if vocabulary is None else tuple(vocabulary.ids),
    )


def _keep_best(config: RunConfig) -> KeepBest | None:
    if not config.keep_best:
        return None
    directory = pathlib.Path(config.model_dir)
    return KeepBest(directory, config.best_metric, config.best_mode, config.keep_best)


@contextlib.contextmanager
def _only_run(directory: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of the folder."""
    lock = directory / ".lock"
    refusal = (
        f"another process trains in {directory}; wait until it has ended, or give this run another "
        "MODEL_DIR"
    )
    with only_writer(lock, refusal):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _latest_in(directory: pathlib.Path) -> pathlib.Path | None:
    """The latest checkpoint; FileNotFoundError if it is not whole: none is stepped over."""
    numbers = [path.name.removeprefix("checkpoint_") for path in directory.glob("checkpoint_*")]
    steps = [int(number) for number in numbers if number.isdigit()]
    return checkpoint_path(directory / f"checkpoint_{max(steps)}") if steps else None
