"""Folders of photos in COCO's format as SeqIO sources: captions, lists of things, places."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import seqio

from rt2_jax.data.coco import BoxedThing, load_json, look_up, read_boxes
from rt2_jax.data.photo_source import TRAIN, PhotoExample, photo_source
from rt2_jax.data.places import place_text


def caption_source(
    folder: str,
    *,
    annotations: str = "captions.json",
    images: str = "images",
    longest_side: int | None = None,
    lower_case: bool = False,
    splits: Mapping[str, str] = TRAIN,
) -> seqio.DataSource:
    """Each human caption of each photo; the text is empty.

    Args:
      folder: relative to `data_path`.
      annotations: COCO's file with `images` and `annotations`, in the folder.
      images: the folder of the photos, in the folder.
      longest_side: shrinks larger photos, see `photo_source`.
      lower_case: a few captions are written in capitals, which small vocabularies spell letter by
        letter; captions are compared without regard to case anyway.
      splits: name -> what `{split}` in `folder`, `annotations` and `images` stands for.
    """

    def read(root: pathlib.Path, split: str) -> Iterator[PhotoExample]:
        path = root / annotations.format(split=split)
        data = load_json(path, "images", "annotations")
        files = {image["id"]: image["file_name"] for image in data["images"]}
        for caption in data["annotations"]:
            file = look_up(files, caption["image_id"], path, "image_id")
            text = caption["caption"].strip()
            text = text.lower() if lower_case else text
            yield PhotoExample(file, "", text, str(caption["id"]))

    return photo_source(folder, read, images=images, longest_side=longest_side, splits=splits)


def detection_source(
    folder: str,
    *,
    annotations: str = "instances.json",
    images: str = "images",
    longest_side: int | None = None,
    place_levels: int = 16,
    most: int = 6,
    splits: Mapping[str, str] = TRAIN,
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
      splits: as in `caption_source`.
    """

    def read(root: pathlib.Path, split: str) -> Iterator[PhotoExample]:
        for photo in read_boxes(root / annotations.format(split=split)):
            largest = sorted(photo.things, key=lambda thing: -thing.box[2] * thing.box[3])[:most]
            things = sorted(largest, key=lambda thing: (thing.name, thing.middle))
            if things:
                target = " ".join(_named_place(thing, place_levels) for thing in things)
                yield PhotoExample(photo.file, "", target, str(photo.id))

    return photo_source(folder, read, images=images, longest_side=longest_side, splits=splits)


def pointing_source(
    folder: str,
    *,
    annotations: str = "instances.json",
    images: str = "images",
    longest_side: int | None = None,
    place_levels: int = 16,
    named: bool = True,
    splits: Mapping[str, str] = TRAIN,
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
      splits: as in `caption_source`.
    """

    def read(root: pathlib.Path, split: str) -> Iterator[PhotoExample]:
        for photo in read_boxes(root / annotations.format(split=split)):
            things = photo.unique()
            if things:
                thing = things[int(np.random.default_rng(photo.id).integers(len(things)))]
                target = _named_place(thing, place_levels).removeprefix("" if named else thing.name)
                yield PhotoExample(photo.file, thing.name, target, str(photo.id))

    return photo_source(folder, read, images=images, longest_side=longest_side, splits=splits)


def object_question_source(
    folder: str,
    *,
    annotations: str = "instances.json",
    images: str = "images",
    longest_side: int | None = None,
    most: int = 4,
    splits: Mapping[str, str] = TRAIN,
) -> seqio.DataSource:
    """Questions of PaLI's object-aware task (Chen et al. 2022, section 3.2), three to a photo.

    "List the objects present" is answered `cat, red cup`; "Is cat in the image?" yes or no, as
    often the one as the other; "Which of cat, dog, red cup are in the image?" `cat, red cup`. What
    is asked depends on the photo's number alone. What is not there is drawn from the names that
    other photos have.

    Args:
      folder: relative to `data_path`.
      annotations: as in `detection_source`.
      images: the folder of the photos, in the folder.
      longest_side: as in `caption_source`.
      most: how many names the third question holds, 2 or more.
      splits: as in `caption_source`.
    """
    if most < 2:
        raise ValueError(f"object_question_source: most: found {most}, expected 2 or more")

    def read(root: pathlib.Path, split: str) -> Iterator[PhotoExample]:
        photos = read_boxes(root / annotations.format(split=split))
        names = {name for photo in photos for name in photo.names}
        for photo in photos:
            present, absent = sorted(photo.names), sorted(names - photo.names)
            if not present or not absent:
                continue
            rng = np.random.default_rng(photo.id)
            yes = rng.random() < 0.5
            one = rng.choice(present if yes else absent)
            there = rng.permutation(present)[: int(rng.integers(1, most))]
            others = rng.permutation(absent)[: most - len(there)]
            asked = rng.permutation([*there, *others])
            for number, (text, target) in enumerate(
                (
                    ("List the objects present", ", ".join(present)),
                    (f"Is {one} in the image?", "yes" if yes else "no"),
                    (
                        f"Which of {', '.join(asked)} are in the image?",
                        ", ".join(name for name in asked if name in there),
                    ),
                )
            ):
                yield PhotoExample(photo.file, text, target, f"{photo.id}-{number}")

    return photo_source(folder, read, images=images, longest_side=longest_side, splits=splits)


def _named_place(thing: BoxedThing, levels: int) -> str:
    y, x = (min(max(value, 0.0), 1.0) for value in thing.middle)
    return f"{thing.name}{place_text(y, x, levels)}"
