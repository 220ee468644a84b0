"""Batches under T5X's names: our own as a `clu` iterator, and those made of SeqIO tasks."""

import json

import numpy as np
import pytest

from rt2_jax.data.t5x_features import (
    IMAGES,
    ImageTextFeatureConverter,
    T5XBatches,
    seqio_vocabulary,
)
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary


@pytest.fixture(scope="module")
def run(tiny_mixture):
    from rt2_jax.training.gin_files import load_run_config
    from rt2_jax.training.run import prepare

    weights = "RunConfig.source_weights = {'tiny_arm': 2.0}"
    bindings = ["MODEL_DIR = 'unused'", weights]
    return prepare(load_run_config([str(tiny_mixture.gin)], bindings)[0])


def batches(run, host=0, hosts=1):
    example = run.examples[0].example(0)
    made = run.batches(host, hosts)
    return T5XBatches(made, run.rules.loss_weights, example, 8 // hosts)


def same(found, expected):
    return found.keys() == expected.keys() and all(
        np.array_equal(found[name], expected[name]) for name in found
    )


def test_the_batches_are_those_of_rt2_train_with_the_sources_weights(run):
    with run.batches() as ours:
        expected = [next(ours) for _ in range(3)]
    for batch, found in zip(expected, batches(run), strict=False):
        weighted = np.asarray(run.rules.apply(batch)["decoder_loss_weights"])
        batch = {**batch, "decoder_loss_weights": weighted}
        batch[IMAGES] = batch.pop("images")
        assert same(found, batch) and found["decoder_loss_weights"].max() == 2


def test_the_spec_tells_what_comes_without_taking_it(run):
    made = batches(run)
    spec, first = made.element_spec, next(made)
    assert {name: (each.dtype, each.shape) for name, each in spec.items()} == {
        name: (value.dtype, value.shape) for name, value in first.items()
    }
    made.reset()
    assert same(next(made), first)


def test_a_saved_position_of_either_trainer_is_gone_on_from(run, tmp_path):
    made = batches(run)
    next(made)
    made.save(tmp_path / "train_ds-000-of-001")
    (tmp_path / "ours").mkdir()
    with run.batches() as ours:
        next(ours)
        (tmp_path / "ours" / "metadata").write_text(json.dumps(ours.get_state()))
    second = next(made)
    for folder in (tmp_path, tmp_path / "ours"):
        again = batches(run)
        again.restore(folder / "train_ds-000-of-001")
        assert same(next(again), second)


def test_hosts_share_out_a_batch(run):
    whole, first, second = (next(batches(run, *part)) for part in ((0, 1), (0, 2), (1, 2)))
    assert same(whole, {name: np.concatenate([first[name], second[name]]) for name in first})


def converted(examples, **options):
    import tensorflow as tf

    spec = {
        "images": tf.TensorSpec([None, 2, 3, 3], tf.uint8),
        "inputs": tf.TensorSpec([None], tf.int32),
        "targets": tf.TensorSpec([None], tf.int32),
    }
    dataset = tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=spec)
    lengths = {"images": 2, "inputs": 4, "targets": 3}
    made = ImageTextFeatureConverter(**{"pack": False, **options})(dataset, lengths)
    return list(made.as_numpy_iterator())


def test_a_seqio_task_with_pictures_becomes_a_batch_that_the_model_takes():
    picture = np.full((1, 2, 3, 3), 7, np.uint8)
    one, none = converted(
        [
            {"images": picture, "inputs": [5, 6, 1], "targets": [9, 1]},
            {"images": picture[:0], "inputs": [5, 1], "targets": [8, 9, 1]},
        ]
    )
    assert one["image_mask"].tolist() == [True, False] and none["image_mask"].sum() == 0
    np.testing.assert_array_equal(one[IMAGES], [picture[0], np.zeros_like(picture[0])])
    assert one["encoder_input_tokens"].tolist() == [5, 6, 1, 0]
    assert one["decoder_target_tokens"].tolist() == [9, 1, 0]
    assert one["decoder_input_tokens"].tolist() == [0, 9, 1]
    assert one["decoder_loss_weights"].tolist() == [1, 1, 0]
    assert one["decoder_loss_weights"].dtype == np.float32 and one["image_mask"].dtype == bool


def test_pictures_are_not_packed():
    with pytest.raises(ValueError, match="cannot be packed: set pack = False"):
        converted([], pack=True)


def test_the_vocabulary_is_the_same_for_seqio():
    text, ours = "push the red block to 17", load_vocabulary()
    theirs = seqio_vocabulary("rt2_8k")
    assert theirs.encode(text) == ours.encode(text)
    assert (theirs.eos_id, theirs.vocab_size) == (ours.eos_id, ours.vocab_size)
