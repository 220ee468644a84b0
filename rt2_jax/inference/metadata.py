"""What a client must know of a policy before it acts."""

from __future__ import annotations

from typing import Any

from rt2_jax.data.task_info import TaskInfo
from rt2_jax.training.description import RunDescription

TERMINATE = "1 = go on, 0 = terminate"


def describe_task(description: RunDescription, task: TaskInfo) -> dict[str, Any]:
    """A robot task of a checkpoint as plain JSON: prompt, pictures, actions, and all hashes.

    Raises:
      ValueError, KeyError: as `RunDescription.action_tokens`.
    """
    bound = description.action_tokens(task).codec
    assert task.robot is not None
    space, spec = task.robot.action_space, description.inputs
    return {
        "code_version": description.code_version,
        "mixture": description.manifest.mixture,
        "mixture_hash": description.manifest.hash,
        "task": task.name,
        "embodiment": task.robot.embodiment,
        "prompt": task.prompt,
        "views": [view for view in task.views if (view, 0) in spec.image_slots],
        "camera_size": list(task.image_size) if task.image_size else None,
        "state_fields": list(task.robot.state_fields) if spec.state_fields else [],
        "state_read": list(spec.state_fields),
        "state_ranges": _state_ranges(description, task),
        "instruction_encoder": _instruction_encoder(description),
        "image_slots": [list(slot) for slot in spec.image_slots],
        "image_size": list(spec.image_size),
        "action_space": space.to_json(),
        "action_space_hash": space.hash,
        "action_bounds": bound.bounds.to_json(),
        "terminate": TERMINATE if "terminate" in space.names else None,
        "codec": bound.codec.to_json(),
        "codec_hash": bound.codec.hash,
        "horizon": bound.codec.horizon,
        "control_rate_hz": space.control_rate_hz,
        "vocabulary_hash": description.tokenizer.hash,
        "writes_text": description.model.writes_text,
        "statistics_keys": [f"{task.robot.embodiment}/{space.name}"],
    }


def _instruction_encoder(description: RunDescription) -> dict[str, Any] | None:
    """What made the vectors that are read instead of words; None where words are read."""
    table = description.instructions
    return None if table is None else {**table.encoder.to_json(), "known": len(table.embeddings)}


def _state_ranges(description: RunDescription, task: TaskInfo) -> dict[str, list[float]]:
    """Name -> low and high of what is read of the state, in the data set's units."""
    writer = description.state_text(task)
    if writer is None:
        return {}
    ranges = writer.ranges
    at = {name: ranges.fields.index(name) for name in writer.fields}
    return {name: [ranges.low[index], ranges.high[index]] for name, index in at.items()}
