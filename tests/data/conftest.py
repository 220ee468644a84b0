"""Small registered tasks and their caches; what a test registers is gone after it."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from rt2_jax.actions.bounds import QuantileBounds
from rt2_jax.actions.space import rt2_action_space

ARM = rt2_action_space(
    "test_arm",
    translation_bound_m=QuantileBounds(),
    rotation_bound_rad=0.25,
    gripper_polarity="high_is_open",
    control_rate_hz=5.0,
)
SIZE = (12, 16)


def encoded(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def picture(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def robot_steps(lengths=(3, 4, 2), seed=0, plans=("",)):
    """Steps of episodes of these lengths, with the views front and wrist and plans in turn."""
    random = np.random.default_rng(seed)
    steps = []
    for episode, length in enumerate(lengths):
        for step in range(length):
            action = random.uniform(-0.2, 0.2, 8).astype(np.float32)
            action[0], action[7] = step < length - 1, step % 2
            number = 100 * episode + step
            steps.append(
                {
                    "images": [encoded(picture(number)), encoded(picture(number + 50))],
                    "text": f"pick object {episode}",
                    "target": plans[len(steps) % len(plans)],
                    "action": action,
                    "state": random.random(2, np.float32),
                    "episode": episode,
                    "step": step,
                    "episode_id": f"demo-{episode}",
                }
            )
    return steps


def web_steps(count=5):
    return [
        {
            "images": [encoded(picture(1000 + i, (20, 30)))],
            "text": f"what is in place {i}?",
            "target": f"a cup of colour {i} with a blue handle and a lid",
            "episode": i,
            "episode_id": str(i),
        }
        for i in range(count)
    ]


@pytest.fixture
def registry():
    """SeqIO's registries, which are put back after the test."""
    import seqio

    before = {r: dict(r._REGISTRY) for r in (seqio.TaskRegistry, seqio.MixtureRegistry)}
    yield
    for kind, entries in before.items():
        kind._REGISTRY.clear()
        kind._REGISTRY.update(entries)


@pytest.fixture
def built_in_tasks():
    """Registers the package's own tasks before `registry` remembers what there is.

    For tests that call `rt2 data`, which imports them, but only the first time in a process.
    """
    import rt2_jax.tasks.mixtures  # noqa: F401


@pytest.fixture
def source():
    """A SeqIO source of these steps."""
    import seqio
    import tensorflow as tf

    kinds = {"images": ([None], tf.string), "action": ([None], tf.float32)}
    kinds |= {"state": ([None], tf.float32), "episode": ([], tf.int64), "step": ([], tf.int64)}

    def make(steps):
        def dataset(split, shuffle_files, seed=None):
            spec = {key: tf.TensorSpec(*kinds.get(key, ([], tf.string))) for key in steps[0]}
            return tf.data.Dataset.from_generator(lambda: iter(steps), output_signature=spec)

        return seqio.FunctionDataSource(dataset, splits=("train",))

    return make


@pytest.fixture
def sharded(source):
    """A SeqIO source of these steps with a shard for each episode, which is 0 in it."""
    from rt2_jax.data.sharded_source import ShardedSource, chosen

    def make(steps):
        episodes = [list(group) for _, group in itertools.groupby(steps, lambda s: s["episode"])]
        alone = [[{**step, "episode": 0} for step in episode] for episode in episodes]
        names = [episode[0]["episode_id"] for episode in episodes]

        def read(split, shuffle_files, shard_info):
            if shard_info is None:
                return source(steps).get_dataset(split, shuffle=False)
            (shard,) = chosen(alone, shard_info)
            return source(shard).get_dataset(split, shuffle=False)

        return ShardedSource(read, lambda split: names, ["train"])

    return make


@pytest.fixture
def check_shards():
    """Checks a source's shards by the steps of a task of it; returns their names.

    Every shard alone, one after the other, are the whole split, and a part of two has every other
    one. With `numbered` the numbers of the episodes are those of the whole split, too.
    """
    import seqio

    def check(task, split="train", numbered=False):
        arrays = ("images", "references", "action", "state", "instruction_embedding")

        def steps(part=None):
            dataset = task.source.get_dataset(split, shuffle=False, shard_info=part)
            found = list(task.preprocess_precache(dataset).as_numpy_iterator())
            for step in found:
                step.update({name: step[name].tolist() for name in arrays})
                if not numbered:
                    del step["episode"]
            return found

        names = task.source.list_shards(split)
        alone = [steps(seqio.ShardInfo(i, len(names))) for i in range(len(names))]
        assert len(names) > 1 and any(alone)
        assert list(itertools.chain(*alone)) == steps()
        assert list(itertools.chain(*alone[1::2])) == steps(seqio.ShardInfo(1, 2))
        with pytest.raises(ValueError, match=f"part 0 of {len(names) + 1}, but there are"):
            steps(seqio.ShardInfo(0, len(names) + 1))
        return names

    return check


@pytest.fixture
def robot(registry, source):
    """Registers a robot task of these steps, or of a source."""
    from rt2_jax.data.registration import robot_task

    def make(name="arm_pick", steps=None, plans=("",), **changes):
        options = {
            "embodiment": "arm",
            "action_space": ARM,
            "views": ["front", "wrist"],
            "state_fields": ["x", "y"],
            "image_size": SIZE,
            "read_from": "arm",
        }
        given = changes.pop("source", None)
        return robot_task(
            name,
            given or source(robot_steps(plans=plans) if steps is None else steps),
            **{**options, **changes},
        )

    return make


@pytest.fixture
def web(registry, source):
    """Registers a web task of these steps."""
    from rt2_jax.data.registration import web_task

    def make(name="cups", steps=None, **changes):
        options = {"prompt": "Answer in en: {text}", "read_from": "cups"}
        return web_task(name, source(steps or web_steps()), **{**options, **changes})

    return make


@pytest.fixture
def mixture(robot, web, tmp_path):
    """A cached and resolved mixture of a robot and a web task, half and half; its manifest."""
    import seqio

    from rt2_jax.data.cache_writer import cache_task
    from rt2_jax.data.resolve import resolve_mixture

    for task in (robot(), web()):
        cache_task(task, tmp_path, shard_steps=4)
    seqio.MixtureRegistry.add("half", [("arm_pick", 0.5), ("cups", 0.5)])
    return resolve_mixture("half", tmp_path)
