"""A batch under T5X's names: from our batches as a `clu` iterator, and from SeqIO tasks."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from clu.data.dataset_iterator import ArraySpec, DatasetIterator

from rt2_jax.data.batches import MixtureBatches
from rt2_jax.data.vocabulary.tokenizer import BUILT_IN

IMAGES = "encoder_images"
"""What `images` of a batch is called under T5X."""


class T5XBatches(DatasetIterator):
    """A run's batches as T5X's trainer takes them (`clu.data.dataset_iterator`).

    `images` is called `encoder_images`. The loss weights of the sources are multiplied into
    `decoder_loss_weights`, since T5X's loss knows no sources. T5X saves the position beside its
    checkpoints (`SaveCheckpointConfig.save_dataset`), as JSON.

    Args:
      batches: of this process.
      loss_weights: of the sources, by `source_id`; None for 1.
      example: features of one example.
      batch_size: of this process.
    """

    def __init__(
        self,
        batches: MixtureBatches,
        loss_weights: np.ndarray | None,
        example: Mapping[str, np.ndarray],
        batch_size: int,
    ) -> None:
        self._batches = batches
        self._weights = None if loss_weights is None else loss_weights.astype(np.float32)
        self._start = batches.get_state()
        self._spec = {
            _name(name): ArraySpec(value.dtype, (batch_size, *value.shape))
            for name, value in example.items()
        }

    @property
    def element_spec(self) -> Mapping[str, ArraySpec]:
        """Dtype and shape of every feature, without reading data."""
        return self._spec

    def __next__(self) -> dict[str, np.ndarray]:
        batch = {_name(name): value for name, value in next(self._batches).items()}
        if self._weights is not None:
            weights = batch["decoder_loss_weights"]
            batch["decoder_loss_weights"] = weights * self._weights[batch["source_id"]][:, None]
        return batch

    def reset(self) -> None:
        self._batches.set_state(self._start)

    def save(self, filename: os.PathLike[str]) -> None:
        pathlib.Path(filename).write_text(json.dumps(self._batches.get_state()))

    def restore(self, filename: os.PathLike[str]) -> None:
        """Goes to a saved position, of T5X's checkpoints or of ours.

        Raises:
          ValueError: it is one of other data.
          FileNotFoundError: there is none.
        """
        path = pathlib.Path(filename)
        ours = path.with_name("metadata")  # Orbax's name for JSON
        self._batches.set_state(json.loads((path if path.exists() else ours).read_text()))


class ImageTextFeatureConverter(seqio.EncDecFeatureConverter):
    """SeqIO tasks with pictures as batches of our models: for tasks that T5X itself reads.

    A task gives `images`, uint8 [n, H, W, 3] with n up to the number of the model's image slots and
    the model's height and width, and `inputs` and `targets` as for T5. `task_feature_lengths` has
    the number of slots as the length of `images`. Examples with fewer pictures get empty slots,
    which `image_mask` leaves out.
    """

    TASK_FEATURES = {
        "images": seqio.FeatureConverter.FeatureSpec(dtype=tf.uint8, rank=4),
        **seqio.EncDecFeatureConverter.TASK_FEATURES,
    }
    MODEL_FEATURES = {
        IMAGES: seqio.FeatureConverter.FeatureSpec(dtype=tf.uint8, rank=4),
        "image_mask": seqio.FeatureConverter.FeatureSpec(dtype=tf.bool),
        **seqio.EncDecFeatureConverter.MODEL_FEATURES,
        "decoder_loss_weights": seqio.FeatureConverter.FeatureSpec(dtype=tf.float32),
    }

    def _convert_features(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        if self.pack:
            raise ValueError("examples with pictures cannot be packed: set pack = False")
        slots = tf.range(task_feature_lengths["images"])

        def with_mask(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {**features, "image_mask": slots < tf.shape(features["images"])[0]}

        return super()._convert_features(ds.map(with_mask), task_feature_lengths)

    def _convert_example(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        made = dict(super()._convert_example(features))
        made["decoder_loss_weights"] = tf.cast(made["decoder_loss_weights"], tf.float32)
        return {**made, IMAGES: features["images"], "image_mask": features["image_mask"]}

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> dict[str, int]:
        slots = task_feature_lengths["images"]
        lengths = super().get_model_feature_lengths(task_feature_lengths)
        return {**lengths, IMAGES: slots, "image_mask": slots}


def seqio_vocabulary(name_or_path: str) -> seqio.SentencePieceVocabulary:
    """A vocabulary of `load_vocabulary`, for SeqIO and T5X."""
    if name_or_path in BUILT_IN:
        folder = resources.files("rt2_jax.data.vocabulary")
        name_or_path = str(folder / f"{name_or_path}.model")
    return seqio.SentencePieceVocabulary(name_or_path)


def _name(name: str) -> Any:
    return IMAGES if name == "images" else name
