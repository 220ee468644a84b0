"""What a run reads, in small: a robot and a web task, cached and resolved, and a gin file."""

import contextlib
import io

import numpy as np
from PIL import Image

GIN = """
include "runs/base.gin"

MIXTURE_OR_TASK_NAME = "tiny_mix"
CACHE_DIR = {cache!r}
TRAIN_STEPS = 6
BATCH_SIZE = 8
TASK_FEATURE_LENGTHS = {{"inputs": 32, "targets": 10}}
WARMUP_STEPS = 2
LOG_PERIOD = 1
SAVE_PERIOD = 3

RunConfig:
  model = @VisionLanguageConfig()
  brightness = 0.1
  tensorboard = False

VisionLanguageConfig:
  vision = @VisionConfig()
  text = @TextConfig()

VisionConfig:
  image_size = (8, 8)
  patch_size = 4
  embed_dim = 16
  num_layers = 1
  num_heads = 2
  mlp_dim = 16

TextConfig:
  vocab_size = 8000
  embed_dim = 16
  encoder_layers = 1
  decoder_layers = 1
  num_heads = 2
  head_dim = 8
  mlp_dim = 16
  dropout_rate = 0.1
"""


def write(folder):
    """Fills `folder/cache` with `tiny_mix` and with `tiny_web`, and writes `folder/tiny.gin`."""
    import seqio

    from rt2_jax.data.cache_writer import cache_task
    from rt2_jax.data.resolve import resolve_mixture

    with registered():
        for name in ("tiny_arm", "tiny_web"):
            cache_task(seqio.TaskRegistry.get(name), folder / "cache")
        for name in ("tiny_mix", "tiny_web"):
            resolve_mixture(name, folder / "cache")
    (folder / "tiny.gin").write_text(GIN.format(cache=str(folder / "cache")))


@contextlib.contextmanager
def registered(steps=None):
    """The tasks, while this lasts; `steps` are those of the robot."""
    import seqio

    from rt2_jax.actions.bounds import QuantileBounds
    from rt2_jax.actions.space import rt2_action_space
    from rt2_jax.data.registration import robot_task, web_task

    space = rt2_action_space(
        "tiny_arm",
        translation_bound_m=QuantileBounds(),
        rotation_bound_rad=0.25,
        gripper_polarity="high_is_open",
        control_rate_hz=5.0,
    )
    registries = (seqio.TaskRegistry, seqio.MixtureRegistry)
    before = [dict(registry._REGISTRY) for registry in registries]
    try:
        robot_task(
            "tiny_arm",
            _source(steps or robot_steps()),
            embodiment="tiny_arm",
            action_space=space,
            views=["front"],
            image_size=(8, 8),
            read_from="nothing",
        )
        web_task("tiny_web", _source(_web_steps()), prompt="Q: {text} A:", read_from="nothing")
        seqio.MixtureRegistry.add("tiny_mix", [("tiny_arm", 0.5), ("tiny_web", 0.5)])
        yield
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry._REGISTRY.clear()
            registry._REGISTRY.update(entries)


def robot_steps(size=(8, 8)):
    """Four episodes of five steps; their order says nothing about their actions."""
    draw = np.random.default_rng(0)
    steps = []
    for number in range(20):
        episode, step = divmod(number, 5)
        action = draw.uniform(-0.2, 0.2, 8).astype(np.float32)
        action[0], action[7] = step < 4, number % 2
        steps.append(
            {
                "images": [_picture(draw, size)],
                "text": f"pick object {episode}",
                "action": action,
                "episode": episode,
                "step": step,
                "episode_id": f"demo-{episode}",
            }
        )
    return steps


def _web_steps():
    draw = np.random.default_rng(1)
    return [
        {
            "images": [_picture(draw, (10, 12))],
            "text": f"what is in place {i}?",
            "target": f"a cup {i}",
            "episode": i,
            "episode_id": str(i),
        }
        for i in range(7)
    ]


def _picture(draw, size):
    file = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (*size, 3)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _source(steps):
    import seqio
    import tensorflow as tf

    kinds = {"images": ([None], tf.string), "action": ([None], tf.float32)}
    kinds |= {"episode": ([], tf.int64), "step": ([], tf.int64)}

    def dataset(split, shuffle_files, seed=None):
        spec = {key: tf.TensorSpec(*kinds.get(key, ([], tf.string))) for key in steps[0]}
        return tf.data.Dataset.from_generator(lambda: iter(steps), output_signature=spec)

    return seqio.FunctionDataSource(dataset, splits=("train",))
