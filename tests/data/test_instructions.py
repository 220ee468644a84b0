"""Vectors that are stored with instructions: cached once for each text, and looked up by it."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from rt2_jax.actions.space import rt2_action_space
from rt2_jax.data.cache import StepCache
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.instructions import InstructionEncoder, InstructionTable, merge_tables
from rt2_jax.data.registration import robot_task
from rt2_jax.data.sharded_source import ShardedSource, chosen

ENCODER = InstructionEncoder("test-encoder", 3)
ARM = rt2_action_space(
    "arm",
    translation_bound_m=0.1,
    rotation_bound_rad=0.1,
    gripper_polarity="high_is_open",
    control_rate_hz=3,
)
PICTURE = tf.io.encode_png(tf.zeros([4, 4, 3], tf.uint8)).numpy()


def vector(text):
    return np.random.default_rng(len(text)).normal(size=3).astype(np.float32)


def table(*texts, encoder=ENCODER):
    return InstructionTable(encoder, {text: vector(text) for text in texts})


@pytest.fixture
def register():
    """Registers a task whose episodes, a shard each, have these (text, vector)."""
    before = dict(seqio.TaskRegistry._REGISTRY)

    def make(episodes, encoder=ENCODER):
        def read(split, shuffle_files, shard_info):
            steps = [
                {
                    "images": [PICTURE],
                    "text": text,
                    "action": np.array([1] + [0.05] * 7, np.float32),
                    "episode": number,
                    "episode_id": str(number),
                    "instruction_embedding": np.asarray(embedding, np.float32),
                }
                for number in chosen(list(range(len(episodes))), shard_info)
                for text, embedding in [episodes[number]]
            ]
            kinds = {"images": ([None], tf.string), "episode": ([], tf.int64)}
            kinds |= dict.fromkeys(("action", "instruction_embedding"), ([None], tf.float32))
            spec = {key: tf.TensorSpec(*kinds.get(key, ([], tf.string))) for key in steps[0]}
            return tf.data.Dataset.from_generator(lambda: iter(steps), output_signature=spec)

        names = [str(number) for number in range(len(episodes))]
        source = ShardedSource(read, lambda split: names, ["train"])
        return robot_task(
            "told",
            source,
            embodiment="arm",
            action_space=ARM,
            views=["front"],
            read_from="told",
            instruction_encoder=encoder,
        )

    yield make
    seqio.TaskRegistry._REGISTRY.clear()
    seqio.TaskRegistry._REGISTRY.update(before)


def test_a_cache_keeps_one_vector_for_each_text(register, tmp_path):
    texts = ["pick", "place it", "pick"]
    info = cache_task(register([(text, vector(text)) for text in texts]), tmp_path)
    cache = StepCache(tmp_path, "told", "train")
    assert cache.info.task.instruction_encoder == ENCODER == info.task.instruction_encoder
    found = cache.instructions()
    assert set(found.embeddings) == {"pick", "place it"}
    for text in texts:
        np.testing.assert_array_equal(found.find(text, "here"), vector(text))
    assert cache[0].instruction_embedding.size == 0  # not once more in every step


def test_a_cache_with_other_vectors_has_another_hash(register, tmp_path):
    first = cache_task(register([("pick", [1, 2, 3])]), tmp_path / "a")
    seqio.TaskRegistry.remove("told")
    other = cache_task(register([("pick", [1, 2, 4])]), tmp_path / "b")
    assert first.hash != other.hash


@pytest.mark.parametrize(
    ("episodes", "encoder", "message"),
    [
        ([("pick", [1, 2, 3]), ("pick", [1, 2, 4])], ENCODER, "'pick' is stored with two vectors"),
        ([("pick", [1, 2])], ENCODER, r"episode 0 .* has shape \[2\] .* expected 3 numbers"),
        ([("pick", [1, 2, np.nan])], ENCODER, "and 1 numbers that are not finite"),
        ([("pick", [1, 2, 3])], None, r"has shape \[3\] .* expected 0 numbers; .* declared"),
    ],
)
def test_vectors_that_nobody_could_use_are_refused(register, tmp_path, episodes, encoder, message):
    with pytest.raises(ValueError, match=message):
        cache_task(register(episodes, encoder), tmp_path)


def test_the_same_vector_but_for_rounding_is_the_same(register, tmp_path):
    cache_task(register([("pick", [1, 2, 3]), ("pick", [1, 2, 3.000001])]), tmp_path)
    assert len(StepCache(tmp_path, "told", "train").instructions().embeddings) == 1


def test_a_table_is_read_back_from_its_json():
    found = InstructionTable.from_json(table("pick", "place it").to_json())
    assert found.encoder == ENCODER
    np.testing.assert_array_equal(found.find("place it", "here"), vector("place it"))


def test_an_unknown_instruction_is_refused_with_the_nearest_ones():
    with pytest.raises(KeyError, match=r"robot 1: no vector .* 'pick up'; there are 2, .*'pick'"):
        table("pick", "place it").find("pick up", "robot 1")


def test_tables_of_several_tasks_become_one():
    merged = merge_tables([("a", table("pick")), ("b", table("pick", "place it"))])
    assert set(merged.embeddings) == {"pick", "place it"}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (None, "task 'b': no vectors are stored .* --gin.RT1Config.instruction=tokens"),
        (table("x", encoder=InstructionEncoder("z", 3)), "task 'b': .*cannot read both"),
        (
            InstructionTable(ENCODER, {"pick": np.zeros(3, np.float32)}),
            "task 'b': .*'pick' is stored with two vectors",
        ),
    ],
)
def test_tables_that_are_not_of_one_kind_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        merge_tables([("a", table("pick")), ("b", other)])
