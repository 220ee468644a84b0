"""Photos with the words written in them: TextOCR's and COCO-Text's format as a SeqIO source."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import seqio

from rt2_jax.data.coco import load_json, look_up
from rt2_jax.data.photo_source import TRAIN, PhotoExample, photo_source

_ILLEGIBLE = ("", ".")  # what COCO-Text and TextOCR write


class Word(NamedTuple):
    """A written word and its box, in pixels."""

    text: str
    left: float
    top: float
    width: float
    height: float


def ocr_source(
    folder: str,
    *,
    annotations: str = "TextOCR_0.1_{split}.json",
    images: str = "{split}_images",
    most: int = 24,
    longest_side: int | None = None,
    splits: Mapping[str, str] = TRAIN,
) -> seqio.DataSource:
    """Each photo with the legible words in it, in reading order; the text is empty.

    Photos without a legible word give no example.

    Args:
      folder: relative to `data_path`.
      annotations: the file with `imgs` (of `file_name`) and `anns` (of `image_id`, `utf8_string`
        and `bbox`), in the folder.
      images: the folder of the photos, in the folder.
      most: how many words are read, the first.
      longest_side: shrinks larger photos to this many pixels; small writing is lost with it.
      splits: name -> what `{split}` in the names of files and folders stands for.
    """

    def read(root: pathlib.Path, split: str) -> Iterator[PhotoExample]:
        path = root / annotations.format(split=split)
        data = load_json(path, "imgs", "anns")
        words: dict[str, list[Word]] = {number: [] for number in data["imgs"]}
        for entry in data["anns"].values():
            found = look_up(words, str(entry["image_id"]), path, "image_id")
            if (text := entry.get("utf8_string", "").strip()) not in _ILLEGIBLE:
                found.append(Word(text, *entry["bbox"]))
        for number, photo in data["imgs"].items():
            if words[number]:
                target = " ".join(word.text for word in in_reading_order(words[number])[:most])
                file = pathlib.PurePosixPath(photo["file_name"]).name
                yield PhotoExample(file, "", target, number)

    return photo_source(folder, read, images=images, longest_side=longest_side, splits=splits)


def in_reading_order(words: Sequence[Word]) -> list[Word]:
    """Lines from top to bottom, words in them from left to right.

    A word is in a line whose first word's box holds the middle of its height.
    """
    lines: list[list[Word]] = []
    for word in sorted(words, key=lambda word: word.top + word.height / 2):
        middle = word.top + word.height / 2
        first = lines[-1][0] if lines else None
        if first is not None and middle <= first.top + first.height:
            lines[-1].append(word)
        else:
            lines.append([word])
    return [word for line in lines for word in sorted(line, key=lambda word: word.left)]
