"""A task whose source has shards, for processes that import it by its name.

`RT2_TEST_PAUSE` is how many seconds each step takes; `RT2_TEST_FAULT` is `SHARD/EPISODE/STEP` of an
action with a NaN.
"""

import io
import os
import time

import numpy as np
import tensorflow as tf
from PIL import Image

from rt2_jax.actions.space import rt2_action_space
from rt2_jax.data.registration import data_path, robot_task
from rt2_jax.data.sharded_source import ShardedSource, chosen

SHARDS = {"a": (2, 3), "b": (), "c": (1, 4), "d": (3,), "e": (5, 1, 1)}  # name -> episodes' lengths
STEPS = sum(map(sum, SHARDS.values()))
SPACE = rt2_action_space(
    "sharded",
    translation_bound_m=0.1,
    rotation_bound_rad=0.1,
    gripper_polarity="high_is_open",
    control_rate_hz=3,
)
FIELDS = {
    "images": tf.TensorSpec([1], tf.string),
    "text": tf.TensorSpec([], tf.string),
    "action": tf.TensorSpec([8], tf.float32),
    "state": tf.TensorSpec([2], tf.float32),
    "episode": tf.TensorSpec([], tf.int64),
    "step": tf.TensorSpec([], tf.int64),
    "episode_id": tf.TensorSpec([], tf.string),
}


def steps_of(shard):
    random = np.random.default_rng(ord(shard))
    for episode, length in enumerate(SHARDS[shard]):
        for step in range(length):
            time.sleep(float(os.environ.get("RT2_TEST_PAUSE", "0")))
            file = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(file, "PNG")
            action = random.uniform(0, 0.1, 8).astype(np.float32)
            action[0] = step < length - 1
            if f"{shard}/{episode}/{step}" == os.environ.get("RT2_TEST_FAULT"):
                action[1] = np.nan
            yield {
                "images": [file.getvalue()],
                "text": f"pick what shard {shard} shows, {'very ' * episode}slowly",
                "action": action,
                "state": random.random(2, np.float32),
                "episode": episode,
                "step": step,
                "episode_id": f"{shard}-{episode}",
            }


def read(split, shuffle_files, shard_info):
    if not (data_path("here")).is_dir():
        raise FileNotFoundError(f"no data at {data_path('here')}")
    shards = chosen(list(SHARDS), shard_info)
    return tf.data.Dataset.from_generator(
        lambda: (step for shard in shards for step in steps_of(shard)), output_signature=FIELDS
    )


robot_task(
    "sharded",
    ShardedSource(read, lambda split: list(SHARDS), ["train"]),
    embodiment="sharded_arm",
    action_space=SPACE,
    views=["front"],
    state_fields=["x", "y"],
    read_from="here",
)
