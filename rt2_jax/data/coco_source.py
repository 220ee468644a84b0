"""Folders of photos in COCO's and VQAv2's formats as SeqIO sources."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from rt2_jax.data.coco import BoxedThing, load_json, look_up, read_boxes
from rt2_jax.data.image import shrink
from rt2_jax.data.places import place_text
from rt2_jax.data.registration import STEP_FEATURES, data_path

_FIELDS = ("images", "text", "target", "episode", "episode_id")
_SIGNATURE = {
    name: tf.TensorSpec([None] * STEP_FEATURES[name].rank, STEP_FEATURES[name].dtype)
    for name in _FIELDS
}


def caption_source(
    folder: str,
    *,
    annotations: str = "captions.json",
    images: str = "images",
    longest_side: int | None = None,
    lower_case: bool = False,
    split_folders: Sequence[str] = (),
) -> seqio.DataSource:
    """Each human caption of each photo; the text is empty.

    Args:
      folder: relative to `data_path`.
      annotations: COCO's file with `images` and `annotations`, in the folder.
      images: the folder of the photos, in the folder.
      longest_side: shrinks larger photos to this many pixels; decoding full ones costs training
        more time than anything else. None keeps them as they are.
      lower_case: a few captions are written in capitals, which small vocabularies spell letter by
        letter; captions are compared without regard to case anyway.
      split_folders: names of splits, each a folder of its own in `folder`; with none of them
        everything is the split `train`.
    """

    def read(root: pathlib.Path) -> Iterator[tuple[str, str, str, str]]:
        data = load_json(root / annotations, "images", "annotations")
        files = {image["id"]: image["file_name"] for image in data["images"]}
        for caption in data["annotations"]:
            file = look_up(files, caption["image_id"], root / annotations, "image_id")
            text = caption["caption"].strip()
            yield file, "", text.lower() if lower_case else text, str(caption["id"])

    return _source(folder, images, longest_side, read, split_folders)


def vqa_source(
    folder: str,
    *,
    questions: str = "vqa_questions.json",
    annotations: str = "vqa_annotations.json",
    images: str = "images",
    file_name: str = "{image_id:012d}.jpg",
    longest_side: int | None = None,
    split_folders: Sequence[str] = (),
) -> seqio.DataSource:
    """Each question about a photo with the answer that most people gave (VQAv2's layout).

    Args:
      folder: relative to `data_path`.
      questions: VQAv2's file with `questions`, in the folder.
      annotations: VQAv2's file with `annotations`, in the folder.
      images: the folder of the photos, in the folder.
      file_name: of a photo, from its `image_id`.
      longest_side: as in `caption_source`.
      split_folders: as in `caption_source`.
    """

    def read(root: pathlib.Path) -> Iterator[tuple[str, str, str, str]]:
        asked = {
            question["question_id"]: question["question"]
            for question in load_json(root / questions, "questions")["questions"]
        }
        for answer in load_json(root / annotations, "annotations")["annotations"]:
            number = answer["question_id"]
            question = look_up(asked, number, root / annotations, "question_id")
            file = file_name.format(image_id=answer["image_id"])
            yield file, question, answer["multiple_choice_answer"], str(number)

    return _source(folder, images, longest_side, read, split_folders)


def detection_source(
    folder: str,
    *,
    annotations: str = "instances.json",
    images: str = "images",
    longest_side: int | None = None,
    place_levels: int = 16,
    most: int = 6,
    split_folders: Sequence[str] = (),
) -> seqio.DataSource:
    """Each photo with the list of its things: `red cube<loc0480><loc0032> blue star<loc...>...`.

    The name comes before its place: written the other way round, small models never found out which
    is which. Things are sorted by name, then from top to bottom and left to right.

    Args:
      folder: relative to `data_path`.
      annotations: COCO's file with `images`, `annotations` and `categories`, in the folder.
      images: the folder of the photos, in the folder.
      longest_side: as in `caption_source`.
      place_levels: see `place_text`.
      most: how many things are listed, the largest first chosen; photos without any are left out.
      split_folders: as in `caption_source`.
    """

    def read(root: pathlib.Path) -> Iterator[tuple[str, str, str, str]]:
        for photo in read_boxes(root / annotations):
            largest = sorted(photo.things, key=lambda thing: -thing.box[2] * thing.box[3])[:most]
            things = sorted(largest, key=lambda thing: (thing.name, thing.middle))
            if things:
                target = " ".join(_named_place(thing, place_levels) for thing in things)
                yield photo.file, "", target, str(photo.id)

    return _source(folder, images, longest_side, read, split_folders)


def pointing_source(
    folder: str,
    *,
    annotations: str = "instances.json",
    images: str = "images",
    longest_side: int | None = None,
    place_levels: int = 16,
    named: bool = True,
    split_folders: Sequence[str] = (),
) -> seqio.DataSource:
    """A thing of each photo that is the only one of its name, and where it is.

    The text is its name, the target that and the middle of its box: `red cube<loc0480><loc0032>`.
    Which thing it is depends on the photo's number alone.

    Args:
      folder: relative to `data_path`.
      annotations: as in `detection_source`.
      images: the folder of the photos, in the folder.
      longest_side: as in `caption_source`.
      place_levels: see `place_text`.
      named: whether the target repeats the name; without it the place has to be found from the
        question alone.
      split_folders: as in `caption_source`.
    """

    def read(root: pathlib.Path) -> Iterator[tuple[str, str, str, str]]:
        for photo in read_boxes(root / annotations):
            things = photo.unique()
            if things:
                thing = things[int(np.random.default_rng(photo.id).integers(len(things)))]
                target = _named_place(thing, place_levels).removeprefix("" if named else thing.name)
                yield photo.file, thing.name, target, str(photo.id)

    return _source(folder, images, longest_side, read, split_folders)


def _named_place(thing: BoxedThing, levels: int) -> str:
    y, x = (min(max(value, 0.0), 1.0) for value in thing.middle)
    return f"{thing.name}{place_text(y, x, levels)}"


def _source(
    folder: str,
    images: str,
    longest_side: int | None,
    read: Callable[[pathlib.Path], Iterator[tuple[str, str, str, str]]],
    split_folders: Sequence[str],
) -> seqio.DataSource:
    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        root = data_path(folder) / (split if split_folders else "")
        entries = list(read(root))
        there = set(os.listdir(root / images)) if (root / images).is_dir() else set()
        missing = sorted({file for file, *_ in entries} - there)
        if missing:
            raise FileNotFoundError(
                f"{root / images}: {len(missing)} photos are missing, the first is {missing[0]}"
            )

        def steps() -> Iterator[dict[str, Any]]:
            for episode, (file, text, target, name) in enumerate(entries):
                photo = (root / images / file).read_bytes()
                if longest_side is not None:
                    photo = shrink(photo, longest_side, str(root / images / file))
                yield {
                    "images": [photo],
                    "text": text,
                    "target": target,
                    "episode": episode,
                    "episode_id": name,
                }

        return tf.data.Dataset.from_generator(steps, output_signature=_SIGNATURE)

    return seqio.FunctionDataSource(dataset, splits=tuple(split_folders) or ("train",))
