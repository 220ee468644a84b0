"""Registers tasks in SeqIO's own registry: a robot or web task is one call in the user's module.

A registered task is an ordinary `seqio.Task`. Its preprocessors end in a `StepFormat`, which holds
what the task declares, and SeqIO's `CacheDatasetPlaceholder`. `docs/data.md` has examples.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from rt2_jax.actions.space import ActionSpace
from rt2_jax.data.instructions import InstructionEncoder
from rt2_jax.data.prompt_template import slot_names
from rt2_jax.data.task_info import ROBOT_PROMPT, RobotInfo, TaskInfo

_PASS = seqio.PassThroughVocabulary(size=0)
STEP_FEATURES: Mapping[str, seqio.Feature] = {
    name: seqio.Feature(_PASS, add_eos=False, dtype=dtype, rank=rank)
    for name, dtype, rank in (
        ("images", tf.string, 1),
        ("text", tf.string, 0),
        ("target", tf.string, 0),
        ("references", tf.string, 1),
        ("action", tf.float32, 1),
        ("state", tf.float32, 1),
        ("episode", tf.int64, 0),
        ("step", tf.int64, 0),
        ("episode_id", tf.string, 0),
        ("instruction_embedding", tf.float32, 1),
    )
}
"""What a step holds, the same in every task so that any tasks can be mixed; see `TaskStep`."""

_OPTIONAL: Mapping[str, Any] = {
    "target": "",
    "references": np.zeros(0, "S1"),
    "action": np.zeros(0, np.float32),
    "state": np.zeros(0, np.float32),
    "step": np.int64(0),
    "instruction_embedding": np.zeros(0, np.float32),
}


class StepFormat:
    """The preprocessor that closes a task: checks its steps' fields and declares what they mean.

    Attributes:
      info: what the task declares.
      read_from: where its data are read from; relative to `data_path`.
      slots: values of slots of the prompt that are the same in all steps.
      columns: further fields of the steps, for tasks that are derived from this one.
      unique_episode_ids: whether no two episodes of a split may have one id.

    Raises:
      ValueError: the prompt has no such slot, or a column is called as a field.
    """

    def __init__(
        self,
        info: TaskInfo,
        read_from: str,
        slots: Mapping[str, str] | None = None,
        columns: Sequence[str] = (),
        unique_episode_ids: bool = False,
    ) -> None:
        self.info = info
        self.read_from = read_from
        self.slots = dict(slots or {})
        self.columns = tuple(columns)
        self.unique_episode_ids = unique_episode_ids
        names = slot_names(info.prompt)
        if unknown := sorted(set(self.slots) - set(names)):
            raise ValueError(
                f"task {info.name!r}: found values for the slots {unknown}, but prompt "
                f"{info.prompt!r} has the slots {list(names)}"
            )
        if fields := sorted(set(STEP_FEATURES) & {*names, *self.columns}):
            raise ValueError(f"task {info.name!r}: {fields} are fields, not slots or columns")

    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Steps with exactly `STEP_FEATURES`; those of `_OPTIONAL` may be missing.

        A column that is called as a slot of the prompt gives the slot's value, and goes into the
        text with the values that are the same in all steps.

        Raises:
          ValueError: a field is missing, unknown, or of another type or rank.
        """
        names = slot_names(self.info.prompt)
        further = {*names, *self.columns}
        found = {k: spec for k, spec in dataset.element_spec.items() if k not in further}
        for name in (*STEP_FEATURES, *found):
            where = f"task {self.info.name!r}: field {name!r} of a step"
            if name not in STEP_FEATURES:
                raise ValueError(f"{where} is unknown; expected {', '.join(STEP_FEATURES)}")
            feature = STEP_FEATURES[name]
            if name not in found:
                if name not in _OPTIONAL:
                    raise ValueError(f"{where} is missing; found {', '.join(sorted(found))}")
            elif (found[name].dtype, found[name].shape.rank) != (feature.dtype, feature.rank):
                raise ValueError(
                    f"{where} is {found[name].dtype.name} of rank {found[name].shape.rank}, "
                    f"expected {feature.dtype.name} of rank {feature.rank}"
                )
        for name in names:
            rank = dataset.element_spec[name].shape.rank if name in dataset.element_spec else 0
            if rank != 0:
                raise ValueError(
                    f"task {self.info.name!r}: column {name!r}, of a slot of the prompt, has rank "
                    f"{rank}, expected one text or number to a step"
                )

        def close(step: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            closed = {**_OPTIONAL, **{name: step[name] for name in found}}
            if names:
                closed["text"] = _with_slots(step["text"], names, {**self.slots, **step})
            return closed

        return dataset.map(close)


def _with_slots(
    text: tf.Tensor, names: Sequence[str], values: Mapping[str, str | tf.Tensor]
) -> tf.Tensor:
    """What `rt2_jax.data.prompt_template.with_slots` does, in TensorFlow; NaN is no value."""

    def line(value: tf.Tensor) -> tf.Tensor:
        return tf.strings.strip(tf.strings.regex_replace(value, r"\s+", " "))

    text = line(text)
    for name in names:
        if name not in values:
            continue
        value = tf.convert_to_tensor(values[name])
        if value.dtype.is_floating:
            known = tf.strings.as_string(value, shortest=True)
            value = tf.where(tf.math.is_nan(value), "", known)
        elif value.dtype != tf.string:
            value = tf.strings.as_string(value)
        value = line(value)
        text = tf.where(value == "", text, text + f"\n{name}: " + value)
    return text


def robot_task(
    name: str,
    source: seqio.DataSource,
    *,
    embodiment: str,
    action_space: ActionSpace,
    views: Sequence[str],
    read_from: str,
    state_fields: Sequence[str] = (),
    state_bounds: Mapping[str, tuple[float, float]] | None = None,
    image_size: tuple[int, int] | None = None,
    prompt: str = ROBOT_PROMPT,
    preprocessors: Sequence[Callable[..., tf.data.Dataset]] = (),
    slots: Mapping[str, str] | None = None,
    columns: Sequence[str] = (),
    loss_weight: float = 1.0,
    instruction_encoder: InstructionEncoder | None = None,
) -> seqio.Task:
    """Registers demonstrations of a robot.

    Args:
      name: of the task.
      source: of anything that `preprocessors` turn into steps (see `STEP_FEATURES`).
      embodiment: the robot.
      action_space: of the steps' actions.
      views: names of a step's pictures, in order.
      read_from: where the data are, for people.
      state_fields: names of the proprioceptive state's numbers.
      state_bounds: ranges of those that have a fixed one, for prompts that tell the state; the
        others have that of the data.
      image_size: (height, width) of every picture; None for any.
      prompt: of the model. Its optional slots are filled from columns of the steps of their names,
        else from `slots`, and leave no trace where there is no value; see docs/data.md.
      preprocessors: SeqIO's, from the source's examples to steps.
      slots: values of slots of the prompt that are the same in all steps.
      columns: further fields of the steps that `preprocessors` give. They are not cached; tasks
        that are derived from this one can use them, see `with_plans`.
      loss_weight: what the loss of its examples is multiplied by, beside its rate in a mixture.
      instruction_encoder: what made the vectors in the steps' `instruction_embedding`, float32
        [dim], for models that read them instead of the words (RT-1); None where there are none.

    Raises:
      ValueError: the name is registered already, or what `TaskInfo` and `StepFormat` refuse.
    """
    bounds = tuple((name, low, high) for name, (low, high) in (state_bounds or {}).items())
    robot = RobotInfo(embodiment, action_space, tuple(state_fields), bounds)
    info = TaskInfo(name, prompt, tuple(views), image_size, robot, loss_weight, instruction_encoder)
    return _register(source, preprocessors, StepFormat(info, read_from, slots, columns))


def web_task(
    name: str,
    source: seqio.DataSource,
    *,
    prompt: str,
    read_from: str,
    with_image: bool = True,
    preprocessors: Sequence[Callable[..., tf.data.Dataset]] = (),
    loss_weight: float = 1.0,
    metrics: Sequence[str] | None = None,
) -> seqio.Task:
    """Registers web examples: a picture (or none), a text and the target text.

    Args:
      name: of the task.
      source: of anything that `preprocessors` turn into steps (see `STEP_FEATURES`).
      prompt: of the model; `{text}` stands for a step's text.
      read_from: where the data are, for people.
      with_image: False for text only.
      preprocessors: SeqIO's, from the source's examples to steps.
      loss_weight: what the loss of its examples is multiplied by, beside its rate in a mixture.
      metrics: of `TEXT_METRICS`, what evaluation judges its answers by; default: those of its
        prompt, if that is one of `rt2_jax.data.prompts`.

    Raises:
      ValueError: the name is registered already, or an unknown metric.
    """
    views = ("picture",) if with_image else ()
    judged = None if metrics is None else tuple(metrics)
    info = TaskInfo(name, prompt, views, loss_weight=loss_weight, metrics=judged)
    return _register(source, preprocessors, StepFormat(info, read_from))


def derive_task(
    task: str,
    name: str,
    *,
    prompt: str,
    preprocessors: Sequence[Callable[..., tf.data.Dataset]] = (),
    unique_episode_ids: bool = False,
) -> seqio.Task:
    """Registers a task of a registered one's data with another prompt.

    Args:
      task: the name of the registered one.
      name: of the new one.
      prompt: of the model; slots of this one's are filled from columns of the registered one's
        steps, and from its constants.
      preprocessors: from its steps to those of the new one.
      unique_episode_ids: whether caching refuses two episodes of one id.

    Raises:
      KeyError, ValueError: no such task, or the new name is registered already.
    """
    base = seqio.TaskRegistry.get(task)
    form = step_format(base)
    before = base.preprocessors[: base.preprocessors.index(form)]
    names = slot_names(prompt)
    columns = [*form.columns, *slot_names(form.info.prompt)]
    slots = {slot: value for slot, value in form.slots.items() if slot in names}
    info = dataclasses.replace(form.info, name=name, prompt=prompt)
    unique = unique_episode_ids or form.unique_episode_ids
    return _register(
        base.source,
        [*before, *preprocessors],
        StepFormat(info, form.read_from, slots, columns, unique),
    )


def _register(
    source: seqio.DataSource,
    preprocessors: Sequence[Callable[..., tf.data.Dataset]],
    form: StepFormat,
) -> seqio.Task:
    return seqio.TaskRegistry.add(
        form.info.name,
        source=source,
        preprocessors=[*preprocessors, form, seqio.CacheDatasetPlaceholder()],
        output_features=STEP_FEATURES,
    )


def step_format(task: seqio.Task) -> StepFormat:
    """What a registered task declares.

    Raises:
      ValueError: it was not registered by this module.
    """
    for preprocessor in task.preprocessors:
        if isinstance(preprocessor, StepFormat):
            return preprocessor
    raise ValueError(
        f"task {task.name!r} declares nothing about its steps: register it with robot_task or "
        "web_task of rt2_jax.data, or end its preprocessors in a StepFormat"
    )


def data_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Where data of a relative path are: below `$RT2_DATA_DIR`, or `data` where it is not set."""
    return pathlib.Path(os.environ.get("RT2_DATA_DIR", "data")) / path
