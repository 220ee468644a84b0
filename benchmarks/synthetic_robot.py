"""A robot task of drawn pictures, as RLDS and as a cache: what data benchmarks read.

The pictures have the size of RT-1's (256 x 320) and are JPEG as tensorflow-datasets writes it
(quality 95, halved colour), of 30 kB or so: soft light, things with edges, a little grain.
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from rt2_jax.actions.bounds import QuantileBounds
from rt2_jax.actions.space import rt2_action_space

HEIGHT, WIDTH = 256, 320
EPISODE_STEPS = 40
DRAWN, RECORDED = "bench_drawn", "bench_arm"
"""The task that draws, and the same read from RLDS, which is cached."""
CACHE, RLDS = "cache", "rlds"
"""Folders below `write`'s."""

_GRAIN = 4  # levels of grey, at most
_EPISODES_TO_A_FILE = 8


def draw_picture(draw: np.random.Generator) -> bytes:
    """A picture of 256 x 320, JPEG."""
    light = Image.fromarray(draw.integers(60, 200, (4, 5, 3), np.uint8))
    picture = light.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(draw.integers(8, 16)):
        x, y = int(draw.integers(WIDTH)), int(draw.integers(HEIGHT))
        right, bottom = x + int(draw.integers(10, 90)), y + int(draw.integers(10, 90))
        shape = (pen.ellipse, pen.rectangle)[draw.integers(2)]
        shape((x, y, right, bottom), fill=tuple(draw.integers(0, 256, 3).tolist()))
    grain = draw.integers(-_GRAIN, _GRAIN + 1, (HEIGHT, WIDTH, 1), np.int8)
    pixels = np.clip(np.asarray(picture, np.int16) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def write(folder: str, records: int) -> None:
    """Writes the task as `folder/rlds`, its cache and its manifest below `folder/cache`.

    It loads TensorFlow, so it is for a process of its own.
    """
    import seqio
    import tensorflow as tf

    from rt2_jax.data.cache_writer import cache_task
    from rt2_jax.data.registration import robot_task
    from rt2_jax.data.resolve import resolve_mixture
    from rt2_jax.data.rlds_export import export_rlds

    spec = {
        "images": tf.TensorSpec([1], tf.string),
        "text": tf.TensorSpec([], tf.string),
        "action": tf.TensorSpec([8], tf.float32),
        "episode": tf.TensorSpec([], tf.int64),
        "step": tf.TensorSpec([], tf.int64),
        "episode_id": tf.TensorSpec([], tf.string),
    }

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del split, shuffle_files, seed
        return tf.data.Dataset.from_generator(lambda: _steps(records), output_signature=spec)

    drawn = robot_task(DRAWN, seqio.FunctionDataSource(dataset, splits=("train",)), **_declared())
    export_rlds(drawn, pathlib.Path(folder, RLDS), shard_episodes=_EPISODES_TO_A_FILE)
    cache_task(recorded_task(folder), pathlib.Path(folder, CACHE))
    resolve_mixture(RECORDED, pathlib.Path(folder, CACHE))


def recorded_task(folder: str) -> Any:
    """Registers the task that reads `folder/rlds`; a `seqio.Task`."""
    from rt2_jax.data.registration import robot_task
    from rt2_jax.data.rlds_reader import rlds_source, steps_of_episodes

    def to_step(step: Any) -> dict[str, Any]:
        return {
            "images": step["observation"]["image"][None],
            "text": step["language_instruction"],
            "action": step["action"],
        }

    return robot_task(
        RECORDED,
        rlds_source(str(rlds_directory(folder)), {"train": "train"}),
        preprocessors=[steps_of_episodes(to_step, episode_id=lambda each: each["episode_id"])],
        **_declared(),
    )


def rlds_directory(folder: str) -> pathlib.Path:
    """Where `write` puts the RLDS data set."""
    return pathlib.Path(folder, RLDS, DRAWN, "1.0.0").absolute()


def _declared() -> dict[str, Any]:
    return {
        "embodiment": "bench_arm",
        "action_space": rt2_action_space(
            "bench_arm",
            translation_bound_m=QuantileBounds(),
            rotation_bound_rad=0.25,
            gripper_polarity="high_is_open",
            control_rate_hz=3,
        ),
        "views": ["front"],
        "image_size": (HEIGHT, WIDTH),
        "read_from": "nothing",
    }


def _steps(records: int) -> Iterator[dict[str, Any]]:
    draw = np.random.default_rng(0)
    for number in range(records):
        episode, step = divmod(number, EPISODE_STEPS)
        last = step == EPISODE_STEPS - 1 or number == records - 1
        action = draw.uniform(-0.2, 0.2, 8).astype(np.float32)
        action[0], action[7] = not last, draw.random()
        yield {
            "images": [draw_picture(draw)],
            "text": f"pick thing {episode % 50} from the middle drawer and place it on the counter",
            "action": action,
            "episode": episode,
            "step": step,
            "episode_id": str(episode),
        }
