"""Image-text data sets that TFDS has prepared on this disk, as SeqIO sources and steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.data.image import shrink
from rt2_jax.data.registration import data_path
from rt2_jax.data.sharded_source import ShardedSource
from rt2_jax.data.tfds_parts import read_tfds, tfds_shards

Tensors = Mapping[str, Any]


def tfds_source(directory: str, splits: Mapping[str, str]) -> ShardedSource:
    """Examples of a folder that `tfds.builder_from_directory` reads, in their order on disk.

    Pictures stay encoded. Nothing is ever downloaded, and nothing is read before it is asked for. A
    shard is some files of the split, see `tfds_shards`.

    Args:
      directory: the one with `features.json`, e.g. `coco_captions/2014/1.1.0`; relative to
        `data_path`.
      splits: name -> split of the data set, e.g. `{"train": "train[:90%]"}`.
    """

    def open_builder() -> tfds.core.DatasetBuilder:
        path = data_path(directory)
        if not (path / "features.json").is_file():
            raise FileNotFoundError(
                f"no TFDS data set at {path}: expected a folder with features.json, as "
                "`tfds build` prepares it; set RT2_DATA_DIR to the folder above"
            )
        return tfds.builder_from_directory(path)

    def examples(
        split: str, shuffle_files: bool, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset:
        builder = open_builder()
        pictures = {
            key: tfds.decode.SkipDecoding()
            for key, feature in builder.info.features.items()
            if isinstance(feature, tfds.features.Image)
        }
        return read_tfds(
            builder, splits[split], shard_info, shuffle_files=shuffle_files, decoders=pictures
        )

    def shards(split: str) -> list[str]:
        return [shard.name for shard in tfds_shards(open_builder(), splits[split])]

    return ShardedSource(examples, shards, splits)


def steps_of_examples(
    to_texts: Callable[[Tensors], Tensors], *, longest_side: int | None = None
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """A preprocessor from examples with one picture and any number of texts to web steps.

    Args:
      to_texts: from an example to `image` (encoded, string []), `target` (string [] or [N]),
        perhaps `text` (string [] or [N]), and `episode_id` (string []), as tensors. Each of the N
        targets, such as the captions of a photo, becomes a step.
      longest_side: shrinks larger pictures to this many pixels.
    """

    def steps(example: Tensors) -> tf.data.Dataset:
        found = to_texts(example)
        targets = tf.reshape(found["target"], [-1])
        texts = tf.reshape(found.get("text", ""), [-1])
        image = found["image"]
        if longest_side is not None:
            image = tf.numpy_function(
                lambda data, name: shrink(data, longest_side, f"example {name.decode()!r}"),
                [image, found["episode_id"]],
                tf.string,
                stateful=False,
            )
            image.set_shape([])
        return tf.data.Dataset.from_tensor_slices(
            {"target": targets, "text": tf.broadcast_to(texts, tf.shape(targets))}
        ).map(
            lambda step: {
                **step,
                "images": image[tf.newaxis],
                "episode_id": found["episode_id"],
            }
        )

    def preprocess(dataset: tf.data.Dataset) -> tf.data.Dataset:
        flat = dataset.flat_map(steps).enumerate()
        return flat.map(lambda number, step: {**step, "episode": number})

    return preprocess
