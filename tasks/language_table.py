"""Language-Table, real and simulated (Lynch et al., 2022, arXiv:2210.06407), as RT-2 trains on it.

RT-2's appendix B names five tasks: the action, and four questions about frames of an episode. A
model of it has the image slots `(front, -1)` and `(front, 0)` and writes actions with the codec
`language_table_integers`. A question has one picture, as every web example: two frames, the earlier
one on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from rt2_jax.actions.space import language_table_action_space
from rt2_jax.data.columns import parse_column
from rt2_jax.data.registration import web_task
from rt2_jax.data.rlds_columns import ALL_STEPS, RldsColumns, rlds_task
from rt2_jax.data.rlds_reader import EPISODE_ID, numbered_episodes, rlds_source

DATA_SETS = (
    "language_table",
    "language_table_sim",
    "language_table_blocktoblock_sim",
    "language_table_blocktoblock_4block_sim",
    "language_table_blocktoblock_oracle_sim",
    "language_table_blocktoblockrelative_oracle_sim",
    "language_table_blocktoabsolute_oracle_sim",
    "language_table_blocktorelative_oracle_sim",
    "language_table_separate_oracle_sim",
)
"""442,226 real episodes, 181,020 of people in the simulator, and scripted ones."""

VERSION = "0.0.1"
SPLITS = {"train": "train[:95%]", "validation": "train[95%:]"}
FRAME = "observation/rgb"
INSTRUCTION = "observation/instruction | decode_characters"
POSITION = "observation/effector_translation"

Episode = Mapping[str, tf.Tensor]
"""`frames` string [T], `text` string [], `position` float32 [T, 2], `seed` int64 [2]."""


def ask_instruction(episode: Episode) -> dict[str, tf.Tensor]:
    """What was done between the first and the last frame?"""
    first, last = tf.constant(0), tf.size(episode["frames"]) - 1
    return {**_two_frames(episode, first, last), "text": "", "target": episode["text"]}


def ask_arm_position(episode: Episode) -> dict[str, tf.Tensor]:
    """Where is the arm in the second of two consecutive frames? Whole centimetres."""
    later = _draw(episode, 1, tf.size(episode["frames"]))
    x, y = tf.unstack(tf.strings.as_string(tf.cast(tf.round(100 * _at(episode, later)), tf.int32)))
    target = tf.strings.join(["x ", x, " y ", y])
    return {**_two_frames(episode, later - 1, later), "text": "", "target": target}


def ask_timesteps(episode: Episode) -> dict[str, tf.Tensor]:
    """How many steps lie between two frames?"""
    count = tf.size(episode["frames"])
    first = _draw(episode, 0, count - 1)
    last = _draw(episode, first + 1, count, part=1)
    target = tf.strings.as_string(last - first)
    return {**_two_frames(episode, first, last), "text": "", "target": target}


def ask_success(episode: Episode) -> dict[str, tf.Tensor]:
    """Has the second frame what the instruction asks for?

    Every recorded episode succeeds, and does so at its end: its last frame is a yes, a frame of its
    first half a no; each is drawn half of the time.
    """
    count = tf.size(episode["frames"])
    done = _draw(episode, 0, 2, part=1) == 1
    second = tf.where(done, count - 1, _draw(episode, 0, count // 2))
    return {
        **_two_frames(episode, tf.constant(0), second),
        "text": episode["text"],
        "target": tf.where(done, "yes", "no"),
    }


QUESTIONS: Mapping[str, tuple[str, Callable[[Episode], dict[str, tf.Tensor]]]] = {
    "instruction": ("Q: what was the robot told to do between these frames? A:", ask_instruction),
    "arm_position": ("Q: where is the arm in the second frame, in cm? A:", ask_arm_position),
    "timesteps": ("Q: how many steps lie between these frames? A:", ask_timesteps),
    "success": ("Q: the robot was told to {text}; is it done in the second frame? A:", ask_success),
}
"""Task -> prompt, and the example that an episode gives. The wording is this project's."""


def _draw(episode: Episode, low: Any, high: Any, part: int = 0) -> tf.Tensor:
    """An integer from low to high - 1; the same one for the same episode."""
    seed = episode["seed"] + tf.constant([part, 0], tf.int64)
    return tf.random.stateless_uniform([], seed, low, high, tf.int32)


def _at(episode: Episode, step: tf.Tensor) -> tf.Tensor:
    return episode["position"][step]


def _two_frames(episode: Episode, first: tf.Tensor, second: tf.Tensor) -> dict[str, tf.Tensor]:
    frames = [
        tf.io.decode_image(episode["frames"][step], channels=3, expand_animations=False)
        for step in (first, second)
    ]
    return {"images": tf.io.encode_jpeg(tf.concat(frames, axis=1), quality=95)[tf.newaxis]}


@tf.autograph.experimental.do_not_convert
def questions_of_episodes(
    dataset: tf.data.Dataset, ask: Callable[[Episode], dict[str, tf.Tensor]]
) -> tf.data.Dataset:
    """One example of each RLDS episode of two steps or more."""
    instruction, position = parse_column(INSTRUCTION), parse_column(POSITION)

    def whole(number: tf.Tensor, episode: Mapping[str, Any]) -> tf.data.Dataset:
        def columns(steps: Mapping[str, Any]) -> dict[str, tf.Tensor]:
            fields = {f"observation/{key}": field for key, field in steps["observation"].items()}
            return {
                "frames": fields[FRAME],
                "text": instruction.texts({instruction.path: fields[instruction.path][:1]})[0],
                "position": position.numbers(fields),
                "seed": tf.stack([tf.zeros_like(number), number]),
                "episode": number,
                "episode_id": episode[EPISODE_ID],
            }

        return episode["steps"].batch(ALL_STEPS).map(columns)

    def example(episode: Episode) -> dict[str, tf.Tensor]:
        return {**ask(episode), "episode": episode["episode"], "episode_id": episode["episode_id"]}

    episodes = numbered_episodes(dataset).flat_map(whole)
    return episodes.filter(lambda e: (tf.size(e["frames"]) > 1) & (e["text"] != "")).map(example)


def _asker(ask: Callable[[Episode], dict[str, tf.Tensor]]) -> Callable[..., tf.data.Dataset]:
    return lambda dataset: questions_of_episodes(dataset, ask)


for _name in DATA_SETS:
    _directory = f"{_name}/{VERSION}"
    rlds_task(
        f"{_name}_action",
        _directory,
        SPLITS,
        RldsColumns(
            views={"front": FRAME},
            text=INSTRUCTION,
            action=("action",),
            terminate=None,
            state=(POSITION, "observation/effector_target_translation"),
        ),
        embodiment="language_table" if _name == DATA_SETS[0] else "language_table_sim",
        action_space=language_table_action_space(),
        state_fields=("x", "y", "target_x", "target_y"),
    )
    for _question, (_prompt, _ask) in QUESTIONS.items():
        web_task(
            f"{_name}_{_question}",
            rlds_source(
                _directory,
                SPLITS,
                fields=(FRAME, INSTRUCTION.partition(" ")[0], POSITION),
            ),
            prompt=_prompt,
            read_from=_directory,
            preprocessors=[_asker(_ask)],
        )
