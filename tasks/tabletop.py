"""Demonstrations of the built-in table-top world, recorded with `rt2 sim record --out DATA_DIR`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from rt2_jax.data.registration import robot_task
from rt2_jax.data.rlds_reader import rlds_source, steps_of_episodes
from rt2_jax.data.task_info import RobotInfo
from rt2_jax.sim.simulation import EMBODIMENT, STATE_FIELDS, TABLETOP_ACTIONS
from rt2_jax.sim.world import WORKSPACE

DIRECTORY = "rt2_tabletop/2.0.0"
STATE_BOUNDS = dict(zip(STATE_FIELDS, WORKSPACE, strict=False))
"""Of the tip: the workspace. Plans name places by the same parts of it."""


def tabletop_task(name: str, skill: str, directory: str = DIRECTORY, plan_bins: int = 64) -> None:
    """Registers the successful demonstrations of one skill in a recording.

    Args:
      name: of the task.
      skill: one of the world's.
      directory: of the recording, relative to `data_path`.
      plan_bins: parts of the workspace's sides in which a step's plan names places. A run whose
        prompts tell the tip's place in as many (`RunConfig.state_bins`) has one name for both.
    """

    def to_step(step: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "images": step["observation"]["image"][tf.newaxis],
            "text": step["language_instruction"],
            "action": step["action"],
            "state": step["observation"]["state"],
            "target": plan_text(
                step["point_names"], step["points"], step["observation"]["state"], plan_bins
            ),
        }

    robot = RobotInfo(EMBODIMENT, TABLETOP_ACTIONS, STATE_FIELDS)
    robot_task(
        name,
        rlds_source(directory, {"train": "train"}, recorded=robot),
        embodiment=robot.embodiment,
        action_space=robot.action_space,
        views=["front"],
        state_fields=robot.state_fields,
        state_bounds=STATE_BOUNDS,
        read_from=directory,
        preprocessors=[
            steps_of_episodes(
                to_step,
                episode_id=lambda episode: episode["episode_id"],
                keep=lambda episode: episode["success"] & (episode["skill"] == skill),
            )
        ],
    )


def plan_text(names: tf.Tensor, points: tf.Tensor, tip: tf.Tensor, bins: int) -> tf.Tensor:
    """`name x y` of everything that has a name, and how far the last place is from the tip.

    How far is written as `bins + parts`, so that `bins` is "here". A small model finds out how to
    move from this number, which tells something at every step: an action tells it at the end of the
    way only, since before that it is as large as actions can be.

    Args:
      names: string [P].
      points: float [P, 3], metres in the base frame.
      tip: float [3], metres.
      bins: x and y are written as the part of the workspace that they are in, from 0.

    Returns:
      A string [], with blanks between.
    """
    low, high = np.transpose(WORKSPACE[:2]).astype(np.float32)
    part = (high - low) / bins
    parts = tf.clip_by_value(tf.floor((points[:, :2] - low) / part), 0, bins - 1)
    away = tf.round((points[-1, :2] - tip[:2]) / part)
    named = names + " " + _numbers(parts)
    text = tf.strings.reduce_join(tf.boolean_mask(named, names != ""), separator=" ")
    return text + " " + _numbers(bins + tf.clip_by_value(away, -bins, bins))


def _numbers(values: tf.Tensor) -> tf.Tensor:
    numbers = tf.strings.as_string(tf.cast(values, tf.int32))
    return tf.strings.reduce_join(numbers, axis=-1, separator=" ")


tabletop_task("rt2_tabletop_reach", "reach")
tabletop_task("rt2_tabletop_push", "push")
