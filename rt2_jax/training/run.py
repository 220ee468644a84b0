"""A training run: what it is, and everything that can be known of it before it costs."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from rt2_jax.actions.codec import ActionCodec
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.batches import MixtureBatches
from rt2_jax.data.cache import StepSource
from rt2_jax.data.examples import TaskExamples, mixture_examples
from rt2_jax.data.instructions import InstructionTable, merge_tables
from rt2_jax.data.manifest import Manifest, load_manifest, manifest_path, open_caches
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.data.vocabulary.tokenizer import Tokenizer, load_vocabulary
from rt2_jax.models.model import TransformerModel
from rt2_jax.models.rt1.config import RT1Config
from rt2_jax.training.checkpoints import (
    DESCRIPTION,
    check_params,
    find_checkpoint,
)
from rt2_jax.training.description import RunDescription, check_fits
from rt2_jax.training.initial_state import (
    InitialState,
    check_same_model,
    check_same_vocabulary,
    find_initial,
    plan_initial_state,
)
from rt2_jax.training.lora import BASE, AdaptedModel, base_of
from rt2_jax.training.mesh import make_mesh
from rt2_jax.training.metrics import SourceRules
from rt2_jax.training.partitioning import Partitioner, logical_axis_rules
from rt2_jax.training.resampling import stored_params
from rt2_jax.training.run_config import RunConfig
from rt2_jax.training.train_state import TrainStateInitializer, train_state_initializer


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run that was looked at from all sides and has cost nothing yet; see `prepare`.

    Attributes:
      config: of the run.
      manifest: of the mixture.
      caches: of its tasks, or what reads those that are not cached.
      examples: of its tasks.
      description: the item `rt2` of its checkpoints.
      model: with its optimizer; with LoRA the model whose parameters are base and adapters.
      partitioner: the mesh and the rules.
      initializer: `initializer.abstract` has every shape, dtype and sharding of the state.
      rules: what counts of each source.
      batch: shape and dtype of every feature of the global batch.
      initial_checkpoint: that the parameters come from, if there is one.
      initial_state: what is taken from it, where that is not simply all its parameters.
    """

    config: RunConfig
    manifest: Manifest
    caches: Sequence[StepSource]
    examples: Sequence[TaskExamples]
    description: RunDescription
    model: TransformerModel | AdaptedModel
    partitioner: Partitioner
    initializer: TrainStateInitializer
    rules: SourceRules
    batch: Mapping[str, jax.ShapeDtypeStruct]
    initial_checkpoint: pathlib.Path | None
    initial_state: InitialState | None = None

    @property
    def batch_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every feature of the global batch."""
        return {name: each.shape for name, each in self.batch.items()}

    def batches(self, host: int | None = None, hosts: int | None = None) -> MixtureBatches:
        """This process's part of the run's batches, or the block of another one of `hosts`."""
        make: Callable[..., MixtureBatches] = functools.partial(
            MixtureBatches, workers=self.config.workers
        )
        streams = _streams(self.manifest, self.caches)
        if streams:
            from rt2_jax.data.streamed_batches import StreamedBatches  # imports TensorFlow

            make = functools.partial(StreamedBatches, streams)
        rows = None
        if host is None:
            layout = self.partitioner.data_layout(self.config.global_batch_size)
            rows = layout.rows
            host, hosts = layout.apart(streams) if streams else (0, 1)
        return make(
            self.manifest,
            self.examples,
            seed=self.config.data_seed,
            global_batch_size=self.config.global_batch_size,
            may_change=self.config.may_change_data,
            host=host,
            hosts=1 if hosts is None else hosts,
            rows=rows,
        )


def prepare(config: RunConfig) -> Run:
    """Reads what the run is about and checks it as a whole; nothing is written or trained.

    Raises:
      FileNotFoundError: the mixture is not cached or resolved, or there is no initial checkpoint.
      NotADirectoryError: the run's folder is a file.
      KeyError, TypeError, ValueError: anything that does not fit together.
    """
    check_model(config)
    whole = _load_manifest(config)
    manifest = run_manifest(config)
    caches = open_caches(manifest, config.cache_dir)
    if config.workers and (streams := _streams(manifest, caches)):
        raise ValueError(
            f"RunConfig.workers: found {config.workers}, but {', '.join(streams)} are not cached "
            "and read in the training process; cache them, or set workers to 0"
        )
    tokenizer = load_vocabulary(config.vocabulary)
    inputs = config.input_spec()
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
    partitioner = make_partitioner(config)
    integers = _integers(config.codec, manifest)
    vocabulary = action_vocabulary(config, tokenizer, integers or range(config.codec.count))
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
        instructions=_instructions(inputs, caches),
    )
    model: TransformerModel | AdaptedModel = description.make_model(
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
        tokens_per_image=config.model.tokens_per_image,
    )
    frozen = config.frozen
    if config.lora is not None:
        model, frozen = AdaptedModel(model, config.lora, shapes, types), (f"{BASE}/.*",)
    initializer = train_state_initializer(
        model, partitioner, shapes, types, frozen, config.rate_multipliers, config.ema
    )
    _check_statistics(initializer)
    initial, initial_state = find_initial(config), None
    if initial is not None:
        if config.lora is not None:
            raise ValueError(
                f"RunConfig.lora: {initial} is no checkpoint that says what it is of, which a base "
                "must: begin a run with it, and take that run's checkpoint"
            )
        initial_state = plan_initial_state(config, initial, initializer.abstract)
        if (initial / DESCRIPTION).is_dir():
            check_same_vocabulary(initial, description)
    elif config.initial_checkpoint is not None:
        initial = find_checkpoint(config.initial_checkpoint)
        check_same_vocabulary(initial, description)
        expected = base_of(initializer.abstract.params)
        stored = stored_params(initial, config.model, expected)
        check_params(initial, stored)
        if config.lora is not None and stored is not expected:
            raise ValueError(
                f"RunConfig.lora: {initial} was trained with pictures of another size, and a base "
                "stays as it is; make image_size the one that it had"
            )
        check_same_model(initial, description)
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
        batch={name: jax.ShapeDtypeStruct(shapes[name], types[name]) for name in shapes},
        initial_checkpoint=initial,
        initial_state=initial_state,
    )


def check_model(config: RunConfig) -> None:
    """Refuses a model or a folder that no data could make right.

    Raises:
      NotADirectoryError: the run's folder is a file.
      ValueError: RT-1 needs what the run has not.
    """
    directory = pathlib.Path(config.model_dir)
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(f"RunConfig.model_dir: {directory} is a file, expected a folder")
    if (
        isinstance(config.model, RT1Config)
        and config.model.vision.norm == "frozen_batch"
        and config.initial_checkpoint is None
    ):
        raise ValueError(
            "EfficientNetConfig.norm: found 'frozen_batch', whose statistics come with weights, "
            "and no initial checkpoint; to train from nothing: --gin.EfficientNetConfig.norm=group"
        )


def make_partitioner(config: RunConfig) -> Partitioner:
    """The mesh and the rules.

    Raises:
      ValueError: the devices, or the global batch, cannot be divided so.
    """
    rules = logical_axis_rules(config.logical_axis_rules, config.sequence_parallel)
    partitioner = Partitioner(make_mesh(config.mesh), rules)
    config.step.check_batch_size(config.global_batch_size, partitioner)
    return partitioner


def run_manifest(config: RunConfig) -> Manifest:
    """What the run reads of its mixture.

    Raises:
      FileNotFoundError: the mixture is not cached or resolved; the message has the commands.
      ValueError: only robots are to be read, and there are none.
    """
    manifest = _load_manifest(config)
    if config.robot_only or not config.model.writes_text:
        return manifest.robots()
    return manifest


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


def action_vocabulary(config: RunConfig, tokenizer: Tokenizer, integers: range) -> ActionVocabulary:
    """The tokens of these integers.

    Raises:
      FileNotFoundError, ValueError: the vocabulary has none for them, or there is no corpus.
    """
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


def _instructions(inputs: InputSpec, caches: Sequence[StepSource]) -> InstructionTable | None:
    """The vectors of the mixture's instructions, for a model that reads them."""
    if not inputs.instruction_dim:
        return None
    return merge_tables((cache.info.task.name, cache.instructions()) for cache in caches)


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
