"""gin files for T5X -> the names of `RunConfig`: one file trains under both.

T5X's names are read as names: nothing is imported or called. A value that T5X and this trainer have
in common is translated, one that T5X alone has is refused with its place and with what to use
instead. docs/t5x.md has the list.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rt2_jax.training.gin_statements import (
    REQUIRED,
    Binding,
    Reference,
    Statements,
    check_name,
    check_required,
)


@dataclasses.dataclass(frozen=True)
class _To:
    """Becomes this parameter of ours. `unset`: T5X's None, where it means ours not being said."""

    name: str
    unset: bool = False


@dataclasses.dataclass(frozen=True)
class _Only:
    """One of these values, which this trainer has always; for others `advice` says what to do."""

    values: tuple[Any, ...]
    advice: str


@dataclasses.dataclass(frozen=True)
class _Node:
    """A reference to this configurable, whose parameters are read in turn."""

    name: str
    advice: str = ""
    or_none: bool = False


class _Free:
    """Any value: it changes nothing of what is trained here."""


_Rule = _To | _Only | _Node | _Free
_FREE = _Free()
_EVALUATE = "no evaluation runs inside training; set it to None and run `rt2 eval` on MODEL_DIR"
_NONE: tuple[Any, ...] = (None, (), [])
_NO_RESTORE = (
    "a checkpoint gives parameters only, at step 0: set path = [] and give "
    "--gin.RunConfig.initial_checkpoint=PATH; a run goes on by itself from its MODEL_DIR"
)
_MESH = "give the mesh by --gin.MeshShape.fsdp=N, .data=N and .tensor=N"

_RULES: Mapping[str, Mapping[str, _Rule]] = {
    "train.train": {
        "model": _Node("t5x_bridge.T5XModel", "models of T5X itself are trained by T5X"),
        "model_dir": _To("RunConfig.model_dir"),
        "train_dataset_cfg": _Node("utils.DatasetConfig"),
        "train_eval_dataset_cfg": _Only((None,), _EVALUATE),
        "infer_eval_dataset_cfg": _Only((None,), _EVALUATE),
        "checkpoint_cfg": _Node("utils.CheckpointConfig"),
        "partitioner": _Node("partitioning.PjitPartitioner"),
        "trainer_cls": _Node("trainer.Trainer"),
        "get_dataset_fn": _Node(
            "t5x_bridge.get_dataset", "the data are those of `rt2 data cache`, not SeqIO's"
        ),
        "total_steps": _To("LoopConfig.total_steps"),
        "relative_steps": _Only((None,), "give total_steps, with those before a restart"),
        "stats_period": _To("LoopConfig.log_period", unset=True),
        "random_seed": _To("LoopConfig.seed", unset=True),
        "use_hardware_rng": _Only((False,), "keys are JAX's; leave it False"),
        "actions": _Only((None, {}), "a run ends by itself when the loss is not finite"),
        "run_eval_before_training": _Only((False,), _EVALUATE),
        "use_orbax": _Only((True,), "checkpoints are Orbax's; leave it True"),
        "gc_period": _Only((0,), "leave it 0"),
        "eval_steps": _FREE,
        "eval_period": _FREE,
        "inference_evaluator_cls": _FREE,
        "train_eval_get_dataset_fn": _FREE,
        "summarize_config_fn": _FREE,
        "concurrent_metrics": _FREE,
        "verify_matching_vocabs_fn": _FREE,
    },
    "utils.DatasetConfig": {
        "mixture_or_task_name": _To("RunConfig.mixture"),
        "task_feature_lengths": _To("RunConfig.task_feature_lengths"),
        "split": _To("RunConfig.split"),
        "batch_size": _To("RunConfig.global_batch_size"),
        "seed": _To("RunConfig.data_seed", unset=True),
        "shuffle": _Only((True,), "training data are always shuffled"),
        "use_cached": _Only((True,), "cache the mixture: rt2 data cache"),
        "pack": _Only((False,), "examples with pictures are not packed; set it to False"),
        "use_custom_packing_ops": _Only((False,), "set it to False"),
        "module": _Only((None,), "give --module=MODULE"),
        "use_memory_cache": _FREE,
        "trim_output_features": _FREE,
    },
    "t5x_bridge.T5XModel": {
        "config": _To("RunConfig.model"),
        "optimizer_def": _Node("adafactor.Adafactor", "or say RunConfig.optimizer = @AdamW()"),
        "vocabulary": _To("RunConfig.vocabulary"),
        "z_loss": _To("RunConfig.z_loss"),
        "label_smoothing": _To("RunConfig.label_smoothing"),
        "loss_normalizing_factor": _To("RunConfig.loss_normalizing_factor"),
    },
    "adafactor.Adafactor": {
        **{
            name: _To(f"Adafactor.{name}")
            for name in (
                *("decay_rate", "step_offset", "multiply_by_parameter_scale", "beta1", "factored"),
                *("clipping_threshold", "weight_decay_rate", "min_dim_size_to_factor"),
                *("epsilon1", "epsilon2"),
            )
        },
        "logical_factor_rules": _Node("adafactor.standard_logical_factor_rules"),
        "global_norm_clip_threshold": _Only((None,), "give --gin.StepConfig.clip_norm=NORM"),
        "skip_nan_updates": _FREE,  # a step that is not finite is always skipped
        "learning_rate": _FREE,  # the trainer's is used, in T5X too
    },
    "adafactor.standard_logical_factor_rules": {},
    "partitioning.PjitPartitioner": {
        "num_partitions": _To("MeshShape.tensor"),
        "logical_axis_rules": _Node("partitioning.standard_logical_axis_rules"),
        "model_parallel_submesh": _Only((None,), _MESH),
        "ici_mesh_shape": _Only((None,), _MESH),
        "dcn_mesh_shape": _Only((None,), _MESH),
        "backend": _Only((None,), "JAX_PLATFORMS chooses the devices"),
        "params_on_devices": _Only((True,), "parameters lie on the devices"),
    },
    "partitioning.standard_logical_axis_rules": {
        "activation_partitioning_dims": _Only((1,), "activations are divided along the batch"),
        "parameter_partitioning_dims": _To("parameter_partitioning_dims"),
        "additional_rules": _Only(_NONE, _MESH),
    },
    "trainer.Trainer": {
        "num_microbatches": _To("StepConfig.num_microbatches", unset=True),
        "learning_rate_fn": _Node("utils.create_learning_rate_scheduler"),
        "weight_metrics_computer": _Only((None,), "the gradient's norm is always logged"),
    },
    "utils.create_learning_rate_scheduler": {
        name: _To(f"LearningRate.{name}")
        for name in (
            *("factors", "base_learning_rate", "warmup_steps", "decay_factor", "step_offset"),
            *("steps_per_decay", "steps_per_cycle", "min_learning_rate"),
        )
    },
    "utils.CheckpointConfig": {
        "save": _Node("utils.SaveCheckpointConfig"),
        "restore": _Node("utils.RestoreCheckpointConfig", or_none=True),
    },
    "utils.SaveCheckpointConfig": {
        "period": _To("LoopConfig.save_period"),
        "keep": _To("RunConfig.keep"),
        "dtype": _Only(("float32",), "weights are saved as they are, float32"),
        "checkpoint_steps": _Only(_NONE, "give period, or --gin.RunConfig.keep_period=STEPS"),
        "state_transformation_fns": _Only(_NONE, "leave it out"),
        "keep_dataset_checkpoints": _FREE,
        "save_dataset": _FREE,  # always; a few bytes
    },
    "utils.RestoreCheckpointConfig": {
        "path": _Only(_NONE, _NO_RESTORE),
        "assignment_map": _Only((None,), _NO_RESTORE),
        "state_transformation_fns": _Only(_NONE, _NO_RESTORE),
        "mode": _FREE,
        "strict": _FREE,
        "fallback_to_scratch": _FREE,
        "dtype": _FREE,
        "restore_dataset": _FREE,
    },
}
"""T5X's configurables by their last two names, and what is made of each of their parameters."""

_REQUIRED_OF_T5X = {
    "train.train": (
        *("model", "model_dir", "train_dataset_cfg", "checkpoint_cfg", "partitioner"),
        *("trainer_cls", "get_dataset_fn", "total_steps"),
    ),
    "utils.DatasetConfig": (
        "mixture_or_task_name",
        "task_feature_lengths",
        "split",
        "batch_size",
    ),
    "t5x_bridge.T5XModel": ("config", "optimizer_def", "loss_normalizing_factor"),
    "t5x_bridge.get_dataset": ("model", "cache_dir"),
    "utils.SaveCheckpointConfig": ("period",),
}
# T5X's defaults, where ours are others.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "utils.SaveCheckpointConfig": {"keep": None},
    "partitioning.standard_logical_axis_rules": {"parameter_partitioning_dims": 1},
}
_PARTS = (
    *("RunConfig.loop = @LoopConfig()", "RunConfig.learning_rate = @LearningRate()"),
    *("RunConfig.step = @StepConfig()", "RunConfig.mesh = @MeshShape()"),
)
_ROOT = "train.train"


def translate(statements: Statements, configurables: Collection[str]) -> Statements:
    """Statements for T5X as statements in the names of `configurables`.

    Args:
      statements: of files that import T5X, and of flags.
      configurables: the names of our classes. In the files they may stand by their modules too:
        `config.VisionConfig`, after `from rt2_jax.models import config`.

    Raises:
      KeyError: an unknown name, or a value that is missing.
      ValueError: something that has no equal here; the message has its place and what to use.
    """
    return _Translation(statements, configurables).run()


class _Translation:
    def __init__(self, statements: Statements, configurables: Collection[str]) -> None:
        self._imports = statements.imports
        self._ours = configurables
        self._out = Statements(())
        self._given: dict[str, tuple[str, str]] = {}
        self._macros: dict[str, Binding] = {}
        self._bound: dict[tuple[str, str], dict[str, Binding]] = {}
        used = {macro for each in statements.bindings for macro in each.macros}
        for each in statements.bindings:
            if each.parameter:
                name = self._name(each.name, each.where)
                self._bound.setdefault((each.scope, name), {})[each.parameter] = each
            else:
                if each.where.startswith("--gin."):
                    check_name(each.name, used - {REQUIRED}, each.where, "macro")
                self._macros[each.name] = each
            for macro in each.macros:
                known = {other.name for other in statements.bindings if not other.parameter}
                check_name(macro, known | {REQUIRED}, each.where, "macro", "%")
        check_required({**self._macros, **{key: each for key, each in self._last()}})

    def run(self) -> Statements:
        for (_, name), parameters in self._bound.items():
            for parameter, binding in parameters.items():
                if name in self._ours:
                    self._emit(f"{name}.{parameter}", binding.value, binding.where)
                elif name in _RULES:
                    known = {*_RULES[name], *_REQUIRED_OF_T5X.get(name, ())}
                    what = f"parameter of {name}, or one without an equal here:"
                    check_name(parameter, known, binding.where, what)
        self._walk(_ROOT, "", "the gin files")
        for line in _PARTS:
            name, _, value = line.partition(" = ")
            if name not in self._given:
                self._out.parse(f"{name} = {value}", name, flag=True)
        return self._out

    def _last(self) -> list[tuple[tuple[str, str, str], Binding]]:
        return [
            ((*key, parameter), binding)
            for key, parameters in self._bound.items()
            for parameter, binding in parameters.items()
        ]

    def _name(self, selector: str, where: str) -> str:
        """Ours as its class alone, T5X's as module and function; `seqio.Evaluator` as it is."""
        first, _, rest = selector.partition(".")
        module = "t5x.train" if first == "train" else self._imports.get(first, first)
        whole = f"{module}.{rest}" if rest else module
        if selector == "train":
            whole = "t5x.train.train"
        parts = whole.replace("__main__", "t5x.train").split(".")
        short = ".".join(parts[-2:])
        if parts[0] == "seqio" or short in _RULES or short == "t5x_bridge.get_dataset":
            return short
        if parts[-1] in self._ours and (len(parts) == 1 or parts[0] == "rt2_jax"):
            return parts[-1]
        known = {*_RULES, "t5x_bridge.get_dataset", *self._ours}
        check_name(short, known, where, "name, or one without an equal here:")
        return short

    def _walk(self, name: str, scope: str, where: str) -> None:
        """Translates what is bound to a configurable, within a scope."""
        found = {**self._bound.get(("", name), {})}
        found |= self._bound.get((scope, name), {}) if scope else {}
        missing = [each for each in _REQUIRED_OF_T5X.get(name, ()) if each not in found]
        if missing:
            raise KeyError(
                f"{where}: nothing is bound to {name}.{', .'.join(missing)}; "
                "t5x/train.gin binds what a run needs"
            )
        for parameter, binding in found.items():
            label = f"{name}.{parameter}"
            value, at = self._resolved(binding.value, binding.where)
            if name == "t5x_bridge.get_dataset":
                self._emit(f"RunConfig.{parameter}", value, at)
                continue
            rule = _RULES[name][parameter]
            if isinstance(rule, _Node):
                self._follow(rule, label, value, scope, at)
            elif isinstance(rule, _Only):
                if value not in rule.values:
                    raise ValueError(f"{at}: {label}: found {value!r}: {rule.advice}")
            elif isinstance(rule, _To) and not (rule.unset and value is None):
                self._to(rule.name, label, value, at)
        for parameter, value in _DEFAULTS.get(name, {}).items():
            if parameter not in found:
                rule = _RULES[name][parameter]
                assert isinstance(rule, _To)
                self._to(rule.name, f"{name}.{parameter}", value, where)

    def _follow(self, rule: _Node, label: str, value: Any, scope: str, where: str) -> None:
        if value is None and rule.or_none:
            return
        advice = f"; {rule.advice}" if rule.advice else ""
        if not isinstance(value, Reference):
            raise ValueError(f"{where}: {label}: found {value!r}, expected @{rule.name}{advice}")
        inner, _, selector = value.name.rpartition("/")
        try:
            name = self._name(selector, where)
        except KeyError:
            name = selector
        if label == "t5x_bridge.T5XModel.optimizer_def" and name in self._ours:
            self._emit("RunConfig.optimizer", value, where)
            return
        if name != rule.name:
            raise ValueError(f"{where}: {label}: found @{selector}, expected @{rule.name}{advice}")
        if name == "adafactor.Adafactor":
            self._emit("RunConfig.optimizer", Reference("Adafactor", macro=False), where)
        self._walk(name, inner or scope, where)

    def _to(self, target: str, label: str, value: Any, where: str) -> None:
        if target == "parameter_partitioning_dims":
            if value not in (1, 2):
                raise ValueError(f"{where}: {label}: found {value!r}, expected 1 or 2")
            if value == 2:  # T5X divides `embed` of parameters along its axis `data`
                self._emit("MeshShape.fsdp", -1, where)
                self._emit("MeshShape.data", 1, where)
        elif target == "RunConfig.loss_normalizing_factor" and value is None:
            raise ValueError(
                f"{where}: {label}: found None, which is a sum in T5X and a mean here; name one: "
                "'NUM_REAL_TARGET_TOKENS', 'NUM_TOTAL_TARGET_TOKENS', or a number"
            )
        else:
            self._emit(target, value, where)

    def _emit(self, target: str, value: Any, where: str) -> None:
        """One binding in our names; the same from two places must say the same."""
        text = self._text(value, where)
        before = self._given.setdefault(target, (text, where))
        if before[0] != text:
            raise ValueError(
                f"{where}: {target} would be {text}, but {before[1]} makes it {before[0]}; "
                "give both the same"
            )
        if before == (text, where):
            self._out.parse(f"{target} = {text}", where, flag=True)

    def _resolved(self, value: Any, where: str, through: Sequence[str] = ()) -> tuple[Any, str]:
        """What a macro stands for, and where that is written; other values as they are."""
        if not isinstance(value, Reference) or not value.macro:
            return value, where
        if value.name in through:
            raise ValueError(f"{where}: goes in a circle: {' -> '.join((*through, value.name))}")
        binding = self._macros[value.name]
        return self._resolved(binding.value, binding.where, (*through, value.name))

    def _text(self, value: Any, where: str) -> str:
        """A value as gin text, with macros in full and references by our names."""
        value, where = self._resolved(value, where)
        if isinstance(value, Reference):
            return f"@{self._name(value.name.rpartition('/')[2], where)}()"
        if isinstance(value, dict):
            items = [f"{self._text(k, where)}: {self._text(v, where)}" for k, v in value.items()]
            return "{" + ", ".join(items) + "}"
        if isinstance(value, (list, tuple)):
            inner = "".join(f"{self._text(each, where)}, " for each in value)
            return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
        return repr(value)
