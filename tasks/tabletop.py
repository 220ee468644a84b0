"""Demonstrations of the built-in table-top world, recorded with `rt2 sim record --out DATA_DIR`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from rt2_jax.data.places import LOCATIONS
from rt2_jax.data.registration import robot_task
from rt2_jax.data.rlds_reader import rlds_source, steps_of_episodes
from rt2_jax.data.task_info import RobotInfo
from rt2_jax.sim.simulation import EMBODIMENT, STATE_FIELDS, TABLETOP_ACTIONS

DIRECTORY = "rt2_tabletop/1.0.0"


def tabletop_task(name: str, skill: str, directory: str = DIRECTORY, plan_levels: int = 16) -> None:
    """Registers the successful demonstrations of one skill in a recording.

    Args:
      name: of the task.
      skill: one of the world's.
      directory: of the recording, relative to `data_path`.
      plan_levels: see `place_text`; of the places in a step's plan, see `rt2_jax.sim.plans`.
    """

    def to_step(step: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "images": step["observation"]["image"][tf.newaxis],
            "text": step["language_instruction"],
            "action": step["action"],
            "state": step["observation"]["state"],
            "target": plan_text(step["point_names"], step["points"], plan_levels),
        }

    robot = RobotInfo(EMBODIMENT, TABLETOP_ACTIONS, STATE_FIELDS)
    robot_task(
        name,
        rlds_source(directory, {"train": "train"}, recorded=robot),
        embodiment=robot.embodiment,
        action_space=robot.action_space,
        views=["front"],
        state_fields=robot.state_fields,
        read_from=directory,
        preprocessors=[
            steps_of_episodes(
                to_step,
                episode_id=lambda episode: episode["episode_id"],
                keep=lambda episode: episode["success"] & (episode["skill"] == skill),
            )
        ],
    )


def plan_text(names: tf.Tensor, points: tf.Tensor, levels: int) -> tf.Tensor:
    """`name<loc....><loc....>` of everything that has a name, with blanks between; a string [].

    Args:
      names: string [P]. points: float [P, 2], rows and columns in 0..1. levels: see `place_text`.
    """
    parts = tf.minimum(tf.floor(points * levels), levels - 1)
    pieces = tf.cast((parts + 0.5) * LOCATIONS / levels, tf.int32)
    places = "<loc" + tf.strings.as_string(pieces, width=4, fill="0") + ">"
    named = names + tf.strings.reduce_join(places, axis=1)
    return tf.strings.reduce_join(tf.boolean_mask(named, names != ""), separator=" ")


tabletop_task("rt2_tabletop_reach", "reach")
tabletop_task("rt2_tabletop_push", "push")
