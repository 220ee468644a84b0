"""From a robot's observations to a model's features, and what of them the model does not read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.data.model_inputs import ImageSlot
from rt2_jax.data.state_text import fill_prompt
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.training.description import RunDescription

_ASPECT_TOLERANCE = 0.02  # of width / height


def observation_features(
    description: RunDescription,
    task: TaskInfo,
    images: Mapping[ImageSlot, np.ndarray],
    instruction: str,
    state: np.ndarray | None,
    where: str,
    instruction_embedding: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """See `PolicyEngine.observe`."""
    inputs = description.model_inputs
    slots = [slot for slot in inputs.spec.image_slots if slot[0] in task.views]
    missing = [slot for slot in slots if slot[1] == 0 and slot not in images]
    if missing:
        raise KeyError(
            f"{where}: no picture of view {missing[0][0]!r}; expected "
            f"{[view for view, time in slots if time == 0]}"
        )
    for (view, _), image in images.items():
        _check_aspect(task, view, image.shape, where)
    table = description.instructions
    if table is not None and instruction_embedding is None:
        instruction_embedding = table.find(instruction, where)
    return inputs.observe(
        {slot: image for slot, image in images.items() if slot in slots},
        fill_prompt(task, instruction, description.state_text(task), state, where),
        robot=True,
        where=where,
        instruction_embedding=instruction_embedding,
    )


def observation_name(observation: Observation) -> str:
    """What errors call it."""
    words = ["observation"]
    if observation.session is not None:
        words.append(f"of session {observation.session!r}")
    if observation.step is not None:
        words.append(f"step {observation.step}")
    return ", ".join([" ".join(words[:2]), *words[2:]])


def unused_inputs(
    description: RunDescription, task: TaskInfo, observation: Observation
) -> tuple[str, ...]:
    """Names of what the model does not read."""
    spec = description.inputs
    read = {view for view, _ in spec.image_slots if view in task.views}
    names = [f"images/{view}" for view in observation.images if view not in read]
    if observation.instruction_embedding is not None and description.instructions is None:
        names.append("instruction_embedding")
    if observation.state is not None and not spec.state_fields:
        names.append("state")
    return tuple(names)


def state_outside(
    description: RunDescription, task: TaskInfo, observation: Observation, where: str
) -> tuple[str, ...]:
    """Names of the state's numbers that are outside the range that training saw."""
    writer = description.state_text(task)
    if writer is None or observation.state is None:
        return ()
    return tuple(writer.outside(observation.state, where))


def _check_aspect(task: TaskInfo, view: str, shape: tuple[int, ...], where: str) -> None:
    if task.image_size is None or view not in task.views:
        return
    height, width = task.image_size
    if abs(shape[1] / shape[0] * height / width - 1) > _ASPECT_TOLERANCE:
        raise ValueError(
            f"{where}: the picture of view {view!r} has {shape[0]} x {shape[1]} pixels (height x "
            f"width), but training saw {height} x {width}: crop it to that shape, since stretching "
            "it would move everything in it"
        )
