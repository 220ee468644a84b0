"""Everything that decides a training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.codec import ActionCodec
from rt2_jax.actions.vocabulary import ROUTES
from rt2_jax.data.model_inputs import InputSpec
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.models.config_json import ModelConfig
from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.assignment import check_assignment_map
from rt2_jax.training.ema import EMA
from rt2_jax.training.loop import LoopConfig
from rt2_jax.training.lora import LoRA
from rt2_jax.training.mesh import MeshShape
from rt2_jax.training.optax_schedules import OptaxSchedule
from rt2_jax.training.optimizers import Optimizer, check_multipliers
from rt2_jax.training.parameter_names import check_patterns
from rt2_jax.training.partitioning import logical_axis_rules
from rt2_jax.training.schedules import LearningRate
from rt2_jax.training.step import StepConfig


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run.

    Attributes:
      model_dir: gets the checkpoints and logs; a run goes on from its latest checkpoint.
      mixture: its name; it must be cached and resolved below `cache_dir`.
      cache_dir: what `rt2 data cache` and `rt2 data resolve` wrote.
      model: the shape of the model.
      task_feature_lengths: tokens of the longest prompt (`inputs`) and of the longest answer or
        chunk of actions (`targets`), both with their end.
      global_batch_size: in examples, over all hosts.
      loop: lengths and periods.
      learning_rate: over the steps: `LearningRate` or `OptaxSchedule`.
      optimizer: `Adafactor`, `AdamW`, `Lion` or `SGD`.
      split: of the mixture.
      vocabulary: a built-in vocabulary's name, or a SentencePiece file.
      codec: how actions are written.
      action_tokens: `integer_pieces` (PaLI-X) or `rare_pieces` (PaLM-E).
      action_token_corpus: with `rare_pieces`, a text file, one text a line, whose least-used pieces
        they are; None for the pieces with the lowest scores.
      robot_crop: side of the random crop of robot pictures in training, of the central one later.
      brightness: in training, pictures are multiplied by 1 - brightness to 1 + brightness.
      contrast: the same of their contrast; see `Colours` for all four.
      saturation: the same of their saturation.
      hue: in training, pictures are turned in hue by up to so many turns.
      action_input_dropout: the part of earlier action tokens that training hides from the decoder.
      plan_length: tokens for the plan that a robot's answer begins with; 0 for no plan.
      ordinal_action_tokens: action tokens of a new run begin as waves of their level, see
        `order_action_tokens`.
      state_fields: the numbers of a robot's state that are written before its prompt; () for none.
      state_bins: the parts that each of their ranges is written in.
      prompt_end: text that ends the prompt of a decoder-only model; "" for the end-of-sequence
        token. PaliGemma was trained with a line break.
      source_weights: of tasks whose examples' loss is multiplied by another number than the task
        declares, which is 1 unless it says so.
      data_seed: of the data's order and augmentation; `loop.seed` is that of parameters.
      may_change_data: whether the run may go on from a checkpoint of another mixture or batch size;
        each task then goes on where it was, and the robots of both keep their bounds.
      workers: processes that make examples; 0 for a thread.
      mesh: of the devices.
      logical_axis_rules: pairs of a logical axis and the mesh axes that divide it, before the
        standard ones (`LOGICAL_AXIS_RULES`): the first that fits wins.
      sequence_parallel: between blocks, activations are divided along their length by `tensor`.
      step: microbatches and clipping.
      frozen: regular expressions; parameters whose whole path, as `vision/norm/scale`, one of them
        matches stay as they are: no gradient, no decay, no optimizer state.
      rate_multipliers: regular expression -> what the updates of the parameters are multiplied by
        whose whole path it matches, the first that does; all others have 1.
      ema: the average of the parameters that checkpoints keep too; None for none.
      lora: trains adapters of kernels of `initial_checkpoint` and nothing else; None for none.
      z_loss: coefficient of the z-loss.
      label_smoothing: of the training loss.
      loss_normalizing_factor: see `normalize_weights`.
      initial_checkpoint: whose parameters a new run starts from: a checkpoint, a run's directory or
        `pretrained:NAME`; also one of T5X's.
      assignment_map: (regular expression of a weight of the run, its name in the initial checkpoint
        or None), see `AssignmentMap`.
      strict_restore: whether weights that are missing there, extra or of another shape are
        refused; else they are reported and those of the run are new.
      restore_optimizer: whether the optimizer's state comes from there, too; the step is 0 still.
      keep: how many of the latest checkpoints are kept; None for all.
      keep_period: checkpoints of multiples of it are always kept.
      keep_best: so many are kept for their `best_metric`, beside the latest; 0 for none.
      best_metric: a number that the run logs, or that `rt2 eval --watch` writes; see `KeepBest`.
      best_mode: `min` or `max`.
      tensorboard: writes event files beside the JSONL.
      robot_only: of the mixture the robots alone are trained on, their shares made whole.

    Raises:
      ValueError: an unknown `action_tokens`, no folder, no regular expression, or a number out of
        its range.
    """

    model_dir: str
    mixture: str
    cache_dir: str
    model: ModelConfig
    task_feature_lengths: Mapping[str, int]
    global_batch_size: int
    loop: LoopConfig
    learning_rate: LearningRate | OptaxSchedule
    optimizer: Optimizer = Adafactor()
    split: str = "train"
    vocabulary: str = "rt2_8k"
    codec: ActionCodec = UniformBins()
    action_tokens: str = "integer_pieces"
    action_token_corpus: str | None = None
    robot_crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    action_input_dropout: float = 0.0
    plan_length: int = 0
    ordinal_action_tokens: bool = False
    state_fields: tuple[str, ...] = ()
    state_bins: int = 256
    prompt_end: str = ""
    source_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    data_seed: int = 0
    may_change_data: bool = False
    workers: int = 0
    mesh: MeshShape = MeshShape()
    logical_axis_rules: tuple[Any, ...] = ()
    sequence_parallel: bool = False
    step: StepConfig = StepConfig()
    frozen: tuple[str, ...] = ()
    rate_multipliers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ema: EMA | None = None
    lora: LoRA | None = None
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    loss_normalizing_factor: float | str | None = None
    initial_checkpoint: str | None = None
    assignment_map: tuple[tuple[str, str | None], ...] = ()
    strict_restore: bool = True
    restore_optimizer: bool = False
    keep: int | None = 3
    keep_period: int | None = None
    keep_best: int = 0
    best_metric: str = "loss"
    best_mode: str = "min"
    tensorboard: bool = True
    robot_only: bool = False

    def __post_init__(self) -> None:
        lengths = self.task_feature_lengths
        if set(lengths) != {"inputs", "targets"} or min(lengths.values()) < 1:
            raise ValueError(
                f"RunConfig.task_feature_lengths: found {lengths}, expected tokens of prompts and "
                "answers, as {'inputs': 29, 'targets': 23}"
            )
        if self.action_tokens not in ROUTES:
            raise ValueError(
                f"RunConfig.action_tokens: found {self.action_tokens!r}, expected one of "
                f"{', '.join(ROUTES)}"
            )
        if self.action_token_corpus is not None and self.action_tokens != "rare_pieces":
            raise ValueError(
                f"RunConfig.action_token_corpus: found {self.action_token_corpus!r} with "
                f"action_tokens {self.action_tokens!r}, expected it with 'rare_pieces' only"
            )
        if not self.model_dir:
            raise ValueError("RunConfig.model_dir: found '', expected a folder")
        for name in ("model_dir", "cache_dir", "initial_checkpoint"):
            if "://" in (getattr(self, name) or ""):
                raise ValueError(
                    f"RunConfig.{name}: found {getattr(self, name)!r}, expected a path of a file "
                    "system that is mounted on every host"
                )
        for name, least in (
            ("global_batch_size", 1),
            ("keep", 1),
            ("keep_period", 1),
            ("keep_best", 0),
            ("data_seed", 0),
            ("workers", 0),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"RunConfig.{name}: found {value}, expected {least} or more")
        check_patterns(self.frozen, "RunConfig.frozen")
        logical_axis_rules(self.logical_axis_rules)
        check_multipliers(self.rate_multipliers)
        check_assignment_map(self.assignment_map)
        if self.best_mode not in ("min", "max"):
            raise ValueError(
                f"RunConfig.best_mode: found {self.best_mode!r}, expected 'min' or 'max'"
            )
        if self.lora is not None:
            self._check_lora()
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"RunConfig.label_smoothing: found {self.label_smoothing}, expected 0 to below 1"
            )

    @property
    def encoder_length(self) -> int:
        """Tokens of the longest prompt."""
        return self.task_feature_lengths["inputs"]

    @property
    def decoder_length(self) -> int:
        """Tokens of the longest answer."""
        return self.task_feature_lengths["targets"]

    def input_spec(self) -> InputSpec:
        """The shapes of an example's features, and what is done to its pictures."""
        return InputSpec(
            self.model.image_slots,
            self.model.image_size,
            self.encoder_length,
            self.decoder_length,
            self.robot_crop,
            brightness=self.brightness,
            contrast=self.contrast,
            saturation=self.saturation,
            hue=self.hue,
            action_input_dropout=self.action_input_dropout,
            plan_length=self.plan_length,
            state_fields=tuple(self.state_fields),
            state_bins=self.state_bins,
            placeholders_per_image=self.model.placeholders_per_image,
            prompt_end=self.prompt_end,
            answer_end=self.model.writes_text,
            instruction_dim=self.model.instruction_embedding_dim,
        )

    def _check_lora(self) -> None:
        if self.initial_checkpoint is None:
            raise ValueError(
                "RunConfig.lora: found adapters and no base; name it: INITIAL_CHECKPOINT_PATH"
            )
        if self.frozen:
            raise ValueError(
                f"RunConfig.frozen: found {self.frozen} with RunConfig.lora, where nothing but the "
                "adapters trains; choose them by LoRA.patterns"
            )
        if self.ordinal_action_tokens:
            raise ValueError(
                "RunConfig.ordinal_action_tokens: found True with RunConfig.lora, whose base stays "
                "as it is; leave one of them out"
            )

    def loss_weight(self, task: TaskInfo) -> float:
        """What the loss of a task's examples is multiplied by."""
        return self.source_weights.get(task.name, task.loss_weight)
