"""A training run: what it is, everything that can be known of it before it costs, and doing it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from rt2_jax.actions.codec import ActionCodec
from rt2_jax.actions.identity import differences, without
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.batches import MixtureBatches
from rt2_jax.data.cache import StepSource
from rt2_jax.data.examples import TaskExamples, mixture_examples
from rt2_jax.data.locks import only_writer
from rt2_jax.data.manifest import Manifest, load_manifest, manifest_path, open_caches
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.data.vocabulary.tokenizer import Tokenizer, load_vocabulary
from rt2_jax.models.config import FREE_FIELDS
from rt2_jax.models.config_json import config_to_json
from rt2_jax.models.model import TransformerModel
from rt2_jax.models.rt1.config import RT1Config
from rt2_jax.training.checkpoints import (
    Checkpoints,
    check_optimizer,
    check_params,
    checkpoint_path,
    find_checkpoint,
    read_description,
)
from rt2_jax.training.description import RunDescription, check_fits
from rt2_jax.training.logs import JsonlLog, Log, TensorBoardLog
from rt2_jax.training.loop import Outcome, restore_or_init, train
from rt2_jax.training.mesh import make_mesh
from rt2_jax.training.metrics import SourceRules
from rt2_jax.training.ordinal import order_action_tokens
from rt2_jax.training.partitioning import Partitioner
from rt2_jax.training.resampling import restore_resampled, stored_model, stored_params
from rt2_jax.training.run_config import RunConfig
from rt2_jax.training.run_length import write_run_length
from rt2_jax.training.step import make_train_step
from rt2_jax.training.train_state import TrainState, TrainStateInitializer, train_state_initializer


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run that was looked at from all sides and has cost nothing yet; see `prepare`.

    Attributes:
      config: of the run.
      manifest: of the mixture.
      caches: of its tasks, or what reads those that are not cached.
      examples: of its tasks.
      description: the item `rt2` of its checkpoints.
      model: with its optimizer.
      partitioner: the mesh and the rules.
      initializer: `initializer.abstract` has every shape, dtype and sharding of the state.
      rules: what counts of each source.
      batch_shapes: of every feature of the global batch.
      initial_checkpoint: that the parameters come from, if there is one.
    """

    config: RunConfig
    manifest: Manifest
    caches: Sequence[StepSource]
    examples: Sequence[TaskExamples]
    description: RunDescription
    model: TransformerModel
    partitioner: Partitioner
    initializer: TrainStateInitializer
    rules: SourceRules
    batch_shapes: Mapping[str, tuple[int, ...]]
    initial_checkpoint: pathlib.Path | None

    def batches(self, host: int | None = None, hosts: int | None = None) -> MixtureBatches:
        """This process's part of the run's batches, or another one's of `hosts`."""
        make: Callable[..., MixtureBatches] = functools.partial(
            MixtureBatches, workers=self.config.workers
        )
        if streams := _streams(self.manifest, self.caches):
            from rt2_jax.data.streamed_batches import StreamedBatches  # imports TensorFlow

            make = functools.partial(StreamedBatches, streams)
        return make(
            self.manifest,
            self.examples,
            seed=self.config.data_seed,
            global_batch_size=self.config.global_batch_size,
            may_change=self.config.may_change_data,
            host=jax.process_index() if host is None else host,
            hosts=jax.process_count() if hosts is None else hosts,
        )


def prepare(config: RunConfig) -> Run:
    """Reads what the run is about and checks it as a whole; nothing is written or trained.

    Raises:
      FileNotFoundError: the mixture is not cached or resolved, or there is no initial checkpoint.
      NotADirectoryError: the run's folder is a file.
      KeyError, TypeError, ValueError: anything that does not fit together.
    """
    directory = pathlib.Path(config.model_dir)
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"RunConfig.model_dir: {directory} is a file, expected a folder")
    if isinstance(config.model, RT1Config) and config.model.instruction != "tokens":
        raise ValueError(
            f"RT1Config.instruction: found {config.model.instruction!r}, but no vectors are "
            "read from data; make it 'tokens'"
        )
    if (
        isinstance(config.model, RT1Config)
        and config.model.vision.norm == "frozen_batch"
        and config.initial_checkpoint is None
    ):
        raise ValueError(
            "EfficientNetConfig.norm: found 'frozen_batch', whose statistics come with weights, "
            "and no initial checkpoint; to train from nothing: --gin.EfficientNetConfig.norm=group"
        )
    manifest = whole = _load_manifest(config)
    if not config.model.writes_text:
        manifest = manifest.robots()
    caches = open_caches(manifest, config.cache_dir)
    if config.workers and (streams := _streams(manifest, caches)):
        raise ValueError(
            f"RunConfig.workers: found {config.workers}, but {', '.join(streams)} are not cached "
            "and read in the training process; cache them, or set workers to 0"
        )
    tokenizer = load_vocabulary(config.vocabulary)
    inputs = InputSpec(
        config.model.image_slots,
        config.model.image_size,
        config.encoder_length,
        config.decoder_length,
        config.robot_crop,
        brightness=config.brightness,
        contrast=config.contrast,
        saturation=config.saturation,
        hue=config.hue,
        action_input_dropout=config.action_input_dropout,
        plan_length=config.plan_length,
        state_fields=tuple(config.state_fields),
        state_bins=config.state_bins,
        placeholders_per_image=config.model.placeholders_per_image,
        prompt_end=config.prompt_end,
        answer_end=config.model.writes_text,
    )
    check_fits(config.model, inputs, tokenizer)
    names = [task.info.name for task in manifest.tasks]
    known = [task.info.name for task in whole.tasks]
    unknown = sorted(set(config.source_weights) - set(known))
    if unknown:
        raise KeyError(
            f"RunConfig.source_weights: found {', '.join(unknown)}, but the tasks of mixture "
            f"{manifest.mixture!r} are {', '.join(known)}; name the others alone: "
            "--gin.RunConfig.source_weights={}"
        )
    partitioner = Partitioner(make_mesh(config.mesh))
    config.step.check_batch_size(config.global_batch_size, partitioner)
    integers = _integers(config.codec, manifest)
    vocabulary = _action_vocabulary(config, tokenizer, integers or range(config.codec.count))
    model_inputs = ModelInputs(inputs, tokenizer)
    examples = mixture_examples(manifest, caches, model_inputs, config.codec, vocabulary)
    if config.ordinal_action_tokens and not config.model.writes_text:
        raise ValueError(
            "RunConfig.ordinal_action_tokens: the model has bins for actions and no tokens; leave "
            "it out"
        )
    if config.ordinal_action_tokens and not integers:
        raise ValueError(
            f"RunConfig.ordinal_action_tokens: mixture {manifest.mixture!r} has no robot, so there "
            "are no action tokens; leave it out"
        )
    example = examples[0].example(0)
    description = RunDescription(
        model=config.model,
        inputs=inputs,
        tokenizer=tokenizer,
        manifest=manifest,
        codec=config.codec if integers else None,
        action_vocabulary=vocabulary if integers else None,
        seed=config.data_seed,
        global_batch_size=config.global_batch_size,
        example_input=model_inputs.observed(example),
    )
    model = description.make_model(
        config.optimizer,
        label_smoothing=config.label_smoothing,
        z_loss=config.z_loss,
        loss_normalizing_factor=config.loss_normalizing_factor,
    )
    shapes = {name: (config.global_batch_size, *value.shape) for name, value in example.items()}
    types = {name: value.dtype for name, value in example.items()}
    rules = SourceRules(
        tuple(names),
        np.array([config.loss_weight(task.info) for task in manifest.tasks]),
        np.stack([_accuracy_positions(task.info, description) for task in manifest.tasks]),
    )
    initializer = train_state_initializer(model, partitioner, shapes, types, config.frozen)
    _check_statistics(initializer)
    initial = None
    if config.initial_checkpoint is not None:
        initial = find_checkpoint(config.initial_checkpoint)
        _check_initial(initial, description)
        check_params(initial, stored_params(initial, config.model, initializer.abstract.params))
        _check_initial_model(initial, description)
    return Run(
        config=config,
        manifest=manifest,
        caches=caches,
        examples=examples,
        description=description,
        model=model,
        partitioner=partitioner,
        initializer=initializer,
        rules=rules,
        batch_shapes=shapes,
        initial_checkpoint=initial,
    )


def execute(run: Run, logs: Callable[[int], Sequence[Log]] = lambda start_step: ()) -> Outcome:
    """Trains, from the latest checkpoint of `model_dir` or from the beginning, to the end.

    Args:
      run: from `prepare`.
      logs: gives more logs for a run that starts at this step.

    Raises:
      ValueError: the latest or the initial checkpoint is damaged, or the latest is of another run;
        nothing was written.
      FileNotFoundError: the latest checkpoint is not whole.
      OSError: another process trains in `model_dir`.
      NotFiniteError: see `LoopConfig.max_skipped_in_a_row`.
    """
    config, directory = run.config, pathlib.Path(run.config.model_dir)
    before = _latest_in(directory)
    if before is not None:
        run.description.check_same(
            read_description(before), str(before), may_change_data=config.may_change_data
        )
        check_optimizer(before, run.initializer)
    new = _new_state(run) if before is None else None
    first = jax.process_index() == 0
    with (
        _only_run(directory) if first else contextlib.nullcontext(),
        run.batches() as batches,
        Checkpoints(directory, config.keep, config.keep_period) as kept,
    ):
        state = new
        if state is None:
            state = restore_or_init(run.initializer, batches, kept, config.loop.seed)
        start = int(state.step)
        everything: list[Log] = []
        if first:
            write_run_length(directory, config.loop.total_steps)
            everything = [JsonlLog(directory / "metrics.jsonl", start), *logs(start)]
            if config.tensorboard:
                everything.append(TensorBoardLog(directory / "tensorboard", start))
        step = make_train_step(
            run.model,
            run.initializer,
            run.partitioner,
            config.learning_rate,
            run.rules,
            config.step,
        )
        return train(
            config.loop,
            state,
            step,
            batches,
            run.partitioner,
            kept,
            run.description.to_json(),
            run.rules.names,
            everything,
        )


def _load_manifest(config: RunConfig) -> Manifest:
    path = manifest_path(config.cache_dir, config.mixture, config.split)
    if not path.is_file():
        options = f"{config.mixture} --cache-dir {config.cache_dir}"
        options += f" --split {config.split}" if config.split != "train" else ""
        raise FileNotFoundError(
            f"mixture {config.mixture!r} is not ready: there is no {path}; write it with: "
            f"rt2 data cache {options} && rt2 data resolve {options}"
        )
    return load_manifest(path)


def _action_vocabulary(
    config: RunConfig, tokenizer: Tokenizer, integers: range
) -> ActionVocabulary:
    if config.action_tokens == "integer_pieces":
        return ActionVocabulary.from_integer_pieces(tokenizer, integers)
    if config.action_token_corpus is None:
        return ActionVocabulary.from_rare_pieces(tokenizer, integers)
    path = pathlib.Path(config.action_token_corpus)
    if not path.is_file():
        raise FileNotFoundError(
            f"RunConfig.action_token_corpus: there is no file {path}, expected one text a line"
        )
    with path.open(encoding="utf-8") as lines:
        return ActionVocabulary.from_rare_pieces(tokenizer, integers, lines)


def _streams(manifest: Manifest, caches: Sequence[StepSource]) -> dict[str, Any]:
    """What reads the tasks that are not cached, by name."""
    return {
        task.info.name: cache
        for task, cache in zip(manifest.tasks, caches, strict=True)
        if task.cache_hash is None
    }


def _integers(codec: ActionCodec, manifest: Manifest) -> range | None:
    """The integers that actions of the mixture are written in; None without robots."""
    bound = [
        codec.bind(task.info.robot.action_space, manifest.bounds(task.info)).integers
        for task in manifest.tasks
        if task.info.robot is not None
    ]
    if not bound:
        return None
    return range(min(each.start for each in bound), max(each.stop for each in bound))


def _check_statistics(initializer: TrainStateInitializer) -> None:
    """Refuses to train stored statistics of batch norm: weight decay would draw them to 0."""
    names = flatten_dict(initializer.abstract.params, sep="/")
    stored = [name for name in names if name.endswith(("/norm/mean", "/norm/var"))]
    trained = [name for name in stored if name not in initializer.frozen]
    if trained:
        raise ValueError(
            f"RunConfig.frozen: found {len(trained)} stored statistics that would be trained, as "
            f"{trained[0]}; freeze them: --gin.FROZEN=\"('.*/norm/(mean|var)',)\""
        )


def _accuracy_positions(task: TaskInfo, description: RunDescription) -> np.ndarray:
    """Bool [L]: the targets of a task that count in its accuracy."""
    inputs = description.inputs
    positions = np.ones(inputs.answer_start + inputs.decoder_length, bool)
    if task in description.robot_tasks:
        codec = description.action_tokens(task).codec
        counts = [field.name != "terminate" for field in codec.space.fields]
        positions[:] = False
        first = inputs.answer_start + inputs.plan_length
        chunk = counts * codec.codec.horizon
        positions[first : first + len(chunk)] = chunk
    return positions


def _check_initial(path: pathlib.Path, description: RunDescription) -> None:
    theirs = read_description(path)
    found = theirs.get("vocabulary", {}).get("hash")
    if found != description.tokenizer.hash:
        raise ValueError(
            f"{path}: was trained with vocabulary {str(found)[:12]}, this run has "
            f"{description.tokenizer.hash[:12]}: its embeddings would mean other pieces"
        )


# What a run may change of the model that it begins with: shapes are checked parameter by parameter,
# and positions of pictures of another size are resampled.
_CHANGEABLE = (
    "dropout_rate",
    "drop_connect_rate",
    "dtype",
    "image_size",
    "image_slots",
    "scan_layers",
    *FREE_FIELDS,
)


def _check_initial_model(path: pathlib.Path, description: RunDescription) -> None:
    """Refuses what no shape tells, as another number of heads: weights would mean other things."""
    theirs, ours = config_to_json(stored_model(path)), config_to_json(description.model)
    lines = differences(without(theirs, _CHANGEABLE), without(ours, _CHANGEABLE))
    if lines:
        raise ValueError(
            f"{path}: was trained with another model than this run's, though its parameters have "
            f"the same shapes: {'; '.join(lines)}"
        )


def _new_state(run: Run) -> TrainState:
    """The state of a run that begins."""
    abstract = run.initializer.abstract.params
    state = run.initializer.init(jax.random.key(run.config.loop.seed))
    if run.initial_checkpoint is not None:
        params = restore_resampled(run.initial_checkpoint, run.config.model, abstract)
        state = state.replace(params=params)
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
        state = state.replace(params=order(state.params))
    return state


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
