"""The sides of `rt2 bench data`: this project's pipeline and cache, a bare loop, tf.data.

All read what `synthetic_robot.write` wrote and make uint8 [size, size, 3] of JPEGs: decoded, a
random crop of 0.9 of the sides, resized by a bilinear filter with anti-aliasing.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.benchmarks.synthetic_robot import (
    CACHE,
    HEIGHT,
    RECORDED,
    WIDTH,
    recorded_task,
    rlds_directory,
)
from rt2_jax.data.batches import train_batches
from rt2_jax.data.cache import StepCache
from rt2_jax.data.examples import mixture_examples
from rt2_jax.data.manifest import load_manifest, manifest_path, open_caches
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

BATCH = 64
CROP = 0.9
_TF_PREFETCH = 2  # batches; a number, since tf.data's own choice makes hundreds between turns


@dataclass(frozen=True)
class Pipeline:
    """Training's batches: `train_batches` of the cache, with tokens of prompt and action.

    Attributes:
      folder: of `synthetic_robot.write`.
      size: of the pictures, pixels a side.
      turn: batches.
      workers: processes that make examples.
    """

    folder: str
    size: int
    turn: int
    workers: int

    @property
    def ahead(self) -> int:
        """Batches that workers may have made between turns."""
        return 3 if self.workers else 0

    def pieces(self) -> Iterator[int]:
        """Batches."""
        cache = Path(self.folder, CACHE)
        manifest = load_manifest(manifest_path(cache, RECORDED, "train"))
        inputs = ModelInputs(
            InputSpec((("front", 0),), (self.size, self.size), 48, 16, robot_crop=CROP),
            load_vocabulary(),
        )
        examples = mixture_examples(
            manifest,
            open_caches(manifest, cache),
            inputs,
            UniformBins(),
            ActionVocabulary.from_integer_pieces(inputs.tokenizer),
        )
        batches = train_batches(
            examples, [1.0], seed=0, global_batch_size=BATCH, workers=self.workers
        )
        iterator: Any = iter(batches)
        try:
            while True:
                yield len(next(iterator)["images"])
        finally:
            iterator.close()


@dataclass(frozen=True)
class BareLoop:
    """Pillow on JPEGs in memory, one after the other, and nothing else."""

    folder: str
    size: int
    turn: int
    ahead: int = 0

    def pieces(self) -> Iterator[int]:
        """As many pictures as a batch has, which are made and forgotten."""
        cache = StepCache(Path(self.folder, CACHE), RECORDED, "train")
        pictures = [cache[i].images[0] for i in range(len(cache))]
        draw = np.random.default_rng(0)
        while True:
            for index in draw.integers(len(pictures), size=BATCH):
                top, left = draw.uniform(0, 1 - CROP, 2)
                bare_picture(pictures[index], self.size, top, left)
            yield BATCH


def bare_picture(data: bytes, size: int, top: float, left: float) -> np.ndarray:
    """The picture of a crop whose corner is at these fractions of the sides."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        box = (left * width, top * height, (left + CROP) * width, (top + CROP) * height)
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


@dataclass(frozen=True)
class TfData:
    """tf.data on the RLDS files with AUTOTUNE: the pictures alone, in any order, not shuffled."""

    folder: str
    size: int
    turn: int
    ahead: int = _TF_PREFETCH + 1

    def pieces(self) -> Iterator[int]:
        """Batches of pictures."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import tensorflow as tf

        key = "steps/observation/image"
        feature = {key: tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)}
        tops, lefts = (round(side * (1 - CROP)) + 1 for side in (HEIGHT, WIDTH))

        def episode(record: tf.Tensor) -> tf.data.Dataset:
            pictures = tf.io.parse_single_example(record, feature)[key]
            return tf.data.Dataset.from_tensor_slices(pictures)

        def picture(data: tf.Tensor) -> tf.Tensor:
            top = tf.random.uniform([], 0, tops, tf.int32)
            left = tf.random.uniform([], 0, lefts, tf.int32)
            return tf_picture(data, self.size, top, left)

        files = sorted(map(str, rlds_directory(self.folder).glob("*.tfrecord-*")))
        records = (
            tf.data.Dataset.from_tensor_slices(files)
            .repeat()
            .interleave(
                tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False
            )
        )
        pictures = records.flat_map(episode).map(
            picture, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False
        )
        for batch in pictures.batch(BATCH, drop_remainder=True).prefetch(_TF_PREFETCH):
            yield len(batch)


def tf_picture(data: Any, size: int, top: Any, left: Any) -> Any:
    """TensorFlow's uint8 [size, size, 3] of a crop whose corner is at these pixels.

    Only the crop is decoded. Crops are whole pixels here, at most half a pixel off 0.9 of a side.
    """
    import tensorflow as tf

    window = tf.stack([top, left, round(CROP * HEIGHT), round(CROP * WIDTH)])
    crop = tf.io.decode_and_crop_jpeg(data, window, channels=3)
    return tf.cast(tf.round(tf.image.resize(crop, (size, size), antialias=True)), tf.uint8)


@dataclass(frozen=True)
class Caching:
    """`cache_task` from the RLDS files: every step read, checked, written and read once more."""

    folder: str
    turn: int = 1
    ahead: int = 0

    def pieces(self) -> Iterator[int]:
        """The whole task each time, as steps."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from rt2_jax.data.cache_writer import cache_task

        task = recorded_task(self.folder)
        while True:
            with tempfile.TemporaryDirectory(dir=self.folder) as fresh:
                steps = cache_task(task, fresh).steps
            yield steps
