"""BridgeData (WidowX) in the RLDS layout that Octo and OpenVLA use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from rt2_jax.actions.bounds import QuantileBounds
from rt2_jax.actions.space import rt2_action_space
from rt2_jax.data.instructions import InstructionEncoder
from rt2_jax.data.registration import robot_task
from rt2_jax.data.rlds_reader import rlds_source, steps_of_episodes

BRIDGE_ACTIONS = rt2_action_space(
    "bridge",
    translation_bound_m=QuantileBounds(),
    rotation_bound_rad=QuantileBounds(),
    gripper_polarity="high_is_open",
    control_rate_hz=5.0,
    rotation="euler_xyz",
)
"""The seven recorded numbers behind a `terminate`, with bounds q01 to q99 of the statistics."""

STATE_FIELDS = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


def bridge_step(step: Mapping[str, Any]) -> dict[str, Any]:
    """An RLDS step as a step of the task; it terminates where the step is terminal."""
    terminate = tf.where(step["is_terminal"], 0.0, 1.0)[tf.newaxis]
    return {
        "images": step["observation"]["image_0"][tf.newaxis],
        "text": step["language_instruction"],
        "action": tf.concat([terminate, step["action"]], axis=0),
        "state": step["observation"]["state"],
        "instruction_embedding": step["language_embedding"],
    }


def bridge_episode_id(episode: Mapping[str, Any]) -> tf.Tensor:
    """Folder and number; Bridge counts its episodes anew in every folder."""
    folder = tf.strings.regex_replace(episode["file_path"], r"^.*/numpy_256/|/out\.npy$", "")
    return tf.strings.join([folder, tf.strings.as_string(episode["episode_id"])], "/")


def bridge_task(
    name: str, directory: str, splits: Mapping[str, str], image_size: tuple[int, int]
) -> None:
    """Registers a Bridge data set with its main camera as the view `front`.

    Episodes without an instruction are left out.

    Args:
      name: of the task.
      directory: relative to `data_path`.
      splits: name -> split of the data set.
      image_size: (height, width) of its pictures.
    """
    robot_task(
        name,
        rlds_source(directory, splits),
        embodiment="widowx",
        action_space=BRIDGE_ACTIONS,
        views=["front"],
        state_fields=STATE_FIELDS,
        image_size=image_size,
        read_from=directory,
        instruction_encoder=InstructionEncoder("universal-sentence-encoder", 512),
        preprocessors=[
            steps_of_episodes(
                bridge_step,
                episode_id=bridge_episode_id,
                keep=lambda episode: episode["has_language"],
            )
        ],
    )


bridge_task("bridge", "bridge_dataset/1.0.0", {"train": "train", "validation": "val"}, (256, 256))
# Octo's debugging set: 25 episodes of ten steps, of which five are held out (its `val` holds the
# same 25).
bridge_task(
    "bridge_sample",
    "robot/octo_bridge_debug/1.0.0",
    {"train": "train[:20]", "validation": "train[20:]"},
    (64, 64),
)
