"""TFDS's prepared data sets as web tasks: a step to each text of a picture, nothing downloaded."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.image import decode_image
from rt2_jax.data.registration import web_task
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.tfds_reader import steps_of_examples, tfds_source

from .conftest import picture


@pytest.fixture
def prepared(registry, tmp_path, monkeypatch):
    """A TFDS data set in `coco_captions`' layout: three photos with two captions each."""
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "image/filename": tfds.features.Text(),
            "captions": tfds.features.Sequence({"text": tfds.features.Text(), "id": np.int64}),
            "question": tfds.features.Text(),
        }
    )
    folder = tmp_path / "tiny_captions/1.0.0"
    folder.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(
        name="tiny_captions",
        version=tfds.core.Version("1.0.0"),
        data_dir=str(folder),
        module_name="",
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features, disable_shuffling=True)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2)
    writer.initialize_splits(["train"])
    examples = [
        {
            "image": picture(i),
            "image/filename": f"{i}.png",
            "captions": [{"text": f"{i} {word}", "id": i} for word in ("one", "two")],
            "question": f"what is {i}?",
        }
        for i in range(3)
    ]
    writer.add_examples({"train": examples})
    writer.close_splits(["train"])
    info.write_to_directory(folder)


def task(name, texts, directory="tiny_captions/1.0.0", splits=None, **options):
    return web_task(
        name,
        tfds_source(directory, splits or {"train": "train"}),
        prompt="{text}",
        read_from=directory,
        preprocessors=[steps_of_examples(texts, **options)],
    )


def captions(example):
    return {
        "image": example["image"],
        "target": example["captions"]["text"],
        "episode_id": example["image/filename"],
    }


def test_each_text_of_a_picture_is_a_step(prepared, tmp_path):
    found = task("captions", captions)
    steps = list(read_steps(found, "train"))
    assert [s.target for s in steps] == [f"{i} {w}" for i in range(3) for w in ("one", "two")]
    assert [s.episode_id for s in steps[:3]] == ["0.png", "0.png", "1.png"]
    assert [s.episode for s in steps] == list(range(6))
    np.testing.assert_array_equal(decode_image(steps[4].images[0]), picture(2))
    assert cache_task(found, tmp_path / "cache").steps == 6


def test_questions_splits_and_smaller_pictures(prepared):
    def texts(example):
        return {**captions(example), "target": "{x}", "text": example["question"]}

    found = task("questions", texts, splits={"train": "train[1:]"}, longest_side=8)
    steps = list(read_steps(found, "train"))
    assert [(s.text, s.target) for s in steps] == [("what is 1?", "{x}"), ("what is 2?", "{x}")]
    assert decode_image(steps[0].images[0]).shape == (6, 8, 3)


def test_a_data_set_that_is_not_here_is_named_and_not_fetched(prepared, tmp_path):
    found = task("elsewhere", captions, directory="coco_captions/2014/1.1.0")
    with pytest.raises(FileNotFoundError, match="no TFDS data set at .*coco_captions.*RT2_DATA"):
        next(read_steps(found, "train"))
    assert not (tmp_path / "coco_captions").exists()


def test_the_shards_of_the_source_are_the_parts_of_its_files(prepared, check_shards, monkeypatch):
    monkeypatch.setattr("rt2_jax.data.tfds_parts._EXAMPLES", 1)
    splits = {"train": "train", "some": "train[1:]"}
    found = task("shards", captions, splits=splits)
    file = "tiny_captions-train.tfrecord-0000{}[{}]".format
    assert check_shards(found) == [file(0, "0:2"), file(1, "0:1")]
    assert check_shards(found, "some") == [file(0, "1:2"), file(1, "0:1")]


def test_a_missing_file_is_named_before_anything_is_read(prepared, tmp_path):
    (tmp_path / "tiny_captions/1.0.0/tiny_captions-train.tfrecord-00001").unlink()
    with pytest.raises(
        FileNotFoundError, match="'train': 1 of 2 files are missing, .*-00001; copy"
    ):
        cache_task(task("missing", captions), tmp_path / "cache")
