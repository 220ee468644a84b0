"""Registers tasks in SeqIO's own registry: a robot or web task is one call in the user's module.

A registered task is an ordinary `seqio.Task`. Its preprocessors end in a `StepFormat`, which holds
what the task declares, and SeqIO's `CacheDatasetPlaceholder`. `docs/data.md` has examples.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from rt2_jax.actions.space import ActionSpace
from rt2_jax.data.task_info import ROBOT_PROMPT, RobotInfo, TaskInfo

_PASS = seqio.PassThroughVocabulary(size=0)
STEP_FEATURES: Mapping[str, seqio.Feature] = {
    name: seqio.Feature(_PASS, add_eos=False, dtype=dtype, rank=rank)
    for name, dtype, rank in (
        ("images", tf.string, 1),
        ("text", tf.string, 0),
        ("target", tf.string, 0),
        ("action", tf.float32, 1),
        ("state", tf.float32, 1),
        ("episode", tf.int64, 0),
        ("step", tf.int64, 0),
        ("episode_id", tf.string, 0),
    )
}
"""What a step holds, the same in every task so that any tasks can be mixed; see `TaskStep`."""

_OPTIONAL: Mapping[str, Any] = {
    "target": "",
    "action": np.zeros(0, np.float32),
    "state": np.zeros(0, np.float32),
    "step": np.int64(0),
}


class StepFormat:
    """The preprocessor that closes a task: checks its steps' fields and declares what they mean.

    Attributes:
      info: what the task declares.
      read_from: where its data are read from; relative to `data_path`.
    """

    def __init__(self, info: TaskInfo, read_from: str) -> None:
        self.info = info
        self.read_from = read_from

    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Steps with exactly `STEP_FEATURES`; `target`, `action`, `state`, `step` may be missing.

        Raises:
          ValueError: a field is missing, unknown, or of another type or rank.
        """
        found = dataset.element_spec
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
        return dataset.map(lambda step: {**_OPTIONAL, **step})


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
      prompt: of the model.
      preprocessors: SeqIO's, from the source's examples to steps.

    Raises:
      ValueError: the name is registered already, or what `TaskInfo` refuses.
    """
    bounds = tuple((name, low, high) for name, (low, high) in (state_bounds or {}).items())
    robot = RobotInfo(embodiment, action_space, tuple(state_fields), bounds)
    info = TaskInfo(name, prompt, tuple(views), image_size, robot)
    return _register(info, source, read_from, preprocessors)


def web_task(
    name: str,
    source: seqio.DataSource,
    *,
    prompt: str,
    read_from: str,
    with_image: bool = True,
    preprocessors: Sequence[Callable[..., tf.data.Dataset]] = (),
) -> seqio.Task:
    """Registers web examples: a picture (or none), a text and the target text.

    Args:
      name: of the task.
      source: of anything that `preprocessors` turn into steps (see `STEP_FEATURES`).
      prompt: of the model; `{text}` stands for a step's text.
      read_from: where the data are, for people.
      with_image: False for text only.
      preprocessors: SeqIO's, from the source's examples to steps.

    Raises:
      ValueError: the name is registered already.
    """
    info = TaskInfo(name, prompt, ("picture",) if with_image else ())
    return _register(info, source, read_from, preprocessors)


def _register(
    info: TaskInfo,
    source: seqio.DataSource,
    read_from: str,
    preprocessors: Sequence[Callable[..., tf.data.Dataset]],
) -> seqio.Task:
    return seqio.TaskRegistry.add(
        info.name,
        source=source,
        preprocessors=[
            *preprocessors,
            StepFormat(info, read_from),
            seqio.CacheDatasetPlaceholder(),
        ],
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
