"""Photos in a folder, with texts that a reader finds about them, as a SeqIO source."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import seqio
import tensorflow as tf

from rt2_jax.data.image import shrink
from rt2_jax.data.registration import STEP_FEATURES, data_path

TRAIN: Mapping[str, str] = {"train": "train"}
"""The splits of a folder without splits."""

WEB_FIELDS = ("images", "text", "target", "references", "episode", "episode_id")
WEB_SIGNATURE = {
    name: tf.TensorSpec([None] * STEP_FEATURES[name].rank, STEP_FEATURES[name].dtype)
    for name in WEB_FIELDS
}
"""What a generator of web examples yields."""


class PhotoExample(NamedTuple):
    """A photo's file in its folder, text, target, a name for errors, and what people answered."""

    file: str
    text: str
    target: str
    name: str
    references: tuple[str, ...] = ()


def photo_source(
    folder: str,
    read: Callable[[pathlib.Path, str], Iterator[PhotoExample]],
    *,
    images: str,
    longest_side: int | None,
    splits: Mapping[str, str],
) -> seqio.DataSource:
    """The examples of `read` with their photos; missing ones are named before anything is read.

    Args:
      folder: relative to `data_path`; it and `images` may hold `{split}`.
      read: from the folder and what `{split}` stands for to the examples.
      images: the folder of the photos, in the folder.
      longest_side: shrinks larger photos to this many pixels; decoding full ones costs training
        more time than anything else. None keeps them as they are.
      splits: name -> what `{split}` stands for.
    """

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        root = data_path(folder.format(split=splits[split]))
        photos = root / images.format(split=splits[split])
        examples = list(read(root, splits[split]))
        missing = _missing(photos, {example.file for example in examples})
        if missing:
            raise FileNotFoundError(
                f"{photos}: {len(missing)} photos are missing, the first is {missing[0]}"
            )

        @functools.lru_cache(maxsize=4)  # many files have all examples of a photo in a row
        def photo(file: str) -> bytes:
            data = (photos / file).read_bytes()
            return data if longest_side is None else shrink(data, longest_side, str(photos / file))

        def steps() -> Iterator[dict[str, Any]]:
            for episode, example in enumerate(examples):
                yield {
                    "images": [photo(example.file)],
                    "text": example.text,
                    "target": example.target,
                    "references": list(example.references),
                    "episode": episode,
                    "episode_id": example.name,
                }

        return tf.data.Dataset.from_generator(steps, output_signature=WEB_SIGNATURE)

    return seqio.FunctionDataSource(dataset, splits=tuple(splits))


def _missing(photos: pathlib.Path, files: set[str]) -> list[str]:
    there = set(os.listdir(photos)) if photos.is_dir() else set()
    # Names with a folder in them are rare, and looked for one by one.
    return sorted(file for file in files - there if not (photos / file).is_file())
