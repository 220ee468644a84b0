"""A run whose data or first checkpoint are not here yet: all that can be known of it before."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rt2_jax.data.manifest import open_caches
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary
from rt2_jax.models.make_model import make_model
from rt2_jax.training.checkpoints import check_params, find_checkpoint
from rt2_jax.training.description import check_fits
from rt2_jax.training.partitioning import Partitioner
from rt2_jax.training.resampling import stored_params
from rt2_jax.training.run import (
    action_vocabulary,
    check_model,
    make_partitioner,
    run_manifest,
)
from rt2_jax.training.run_config import RunConfig
from rt2_jax.training.train_state import TrainStateInitializer, train_state_initializer


@dataclasses.dataclass(frozen=True, eq=False)
class Outlook:
    """What is known of a run without its data; see `Run` for what is not said here.

    Attributes:
      config: of the run.
      partitioner: the mesh and the rules.
      initializer: of the state, abstract.
      batch_shapes: of every feature of the global batch.
      missing: what the run needs and has not, each with the commands that make it.
    """

    config: RunConfig
    partitioner: Partitioner
    initializer: TrainStateInitializer
    batch_shapes: Mapping[str, tuple[int, ...]]
    missing: tuple[str, ...]


def look_ahead(config: RunConfig) -> Outlook:
    """Computes shapes, layout and bytes, and checks what `prepare` checks without data.

    No memory is used for the state, and nothing is written.

    Raises:
      FileNotFoundError: there is no such vocabulary.
      KeyError, TypeError, ValueError: anything that does not fit together.
    """
    check_model(config)
    tokenizer = load_vocabulary(config.vocabulary)
    inputs = config.input_spec()
    check_fits(config.model, inputs, tokenizer)
    partitioner = make_partitioner(config)
    first = config.codec.first_integer
    vocabulary = action_vocabulary(config, tokenizer, range(first, first + config.codec.count))
    model = make_model(
        config.model,
        config.optimizer,
        action_token_ids=vocabulary.ids,
        eos_id=tokenizer.eos_id,
    )
    shapes = {**inputs.batch_shapes(config.global_batch_size)}
    shapes["source_id"] = (config.global_batch_size,)
    initializer = train_state_initializer(model, partitioner, shapes, frozen=config.frozen)
    missing = []
    for look in (_data, _initial_checkpoint):
        try:
            look(config, initializer)
        except FileNotFoundError as error:
            missing.append(str(error))
    return Outlook(config, partitioner, initializer, shapes, tuple(missing))


def _data(config: RunConfig, initializer: TrainStateInitializer) -> None:
    open_caches(run_manifest(config), config.cache_dir)


def _initial_checkpoint(config: RunConfig, initializer: TrainStateInitializer) -> None:
    if config.initial_checkpoint is not None:
        path = find_checkpoint(config.initial_checkpoint)
        params = initializer.abstract.params
        check_params(path, stored_params(path, config.model, params))
