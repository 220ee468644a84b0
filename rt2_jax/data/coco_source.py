"""Folders of photos in COCO's and VQAv2's formats as SeqIO sources."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import seqio
import tensorflow as tf

from rt2_jax.data.image import shrink
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
) -> seqio.DataSource:
    """Each human caption of each photo; the text is empty.

    Args:
      folder: relative to `data_path`.
      annotations: COCO's file with `images` and `annotations`, in the folder.
      images: the folder of the photos, in the folder.
      longest_side: shrinks larger photos to this many pixels; decoding full ones costs training
        more time than anything else. None keeps them as they are.
    """

    def read(root: pathlib.Path) -> Iterator[tuple[str, str, str, str]]:
        data = _load(root / annotations, "images", "annotations")
        files = {image["id"]: image["file_name"] for image in data["images"]}
        for caption in data["annotations"]:
            file = _look_up(files, caption["image_id"], root / annotations, "image_id")
            yield file, "", caption["caption"].strip(), str(caption["id"])

    return _source(folder, images, longest_side, read)


def vqa_source(
    folder: str,
    *,
    questions: str = "vqa_questions.json",
    annotations: str = "vqa_annotations.json",
    images: str = "images",
    file_name: str = "{image_id:012d}.jpg",
    longest_side: int | None = None,
) -> seqio.DataSource:
    """Each question about a photo with the answer that most people gave (VQAv2's layout).

    Args:
      folder: relative to `data_path`.
      questions: VQAv2's file with `questions`, in the folder.
      annotations: VQAv2's file with `annotations`, in the folder.
      images: the folder of the photos, in the folder.
      file_name: of a photo, from its `image_id`.
      longest_side: as in `caption_source`.
    """

    def read(root: pathlib.Path) -> Iterator[tuple[str, str, str, str]]:
        asked = {
            question["question_id"]: question["question"]
            for question in _load(root / questions, "questions")["questions"]
        }
        for answer in _load(root / annotations, "annotations")["annotations"]:
            number = answer["question_id"]
            question = _look_up(asked, number, root / annotations, "question_id")
            file = file_name.format(image_id=answer["image_id"])
            yield file, question, answer["multiple_choice_answer"], str(number)

    return _source(folder, images, longest_side, read)


def _source(
    folder: str,
    images: str,
    longest_side: int | None,
    read: Callable[[pathlib.Path], Iterator[tuple[str, str, str, str]]],
) -> seqio.DataSource:
    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del split, shuffle_files, seed
        root = data_path(folder)
        entries = list(read(root))
        missing = sorted({file for file, *_ in entries if not (root / images / file).is_file()})
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

    return seqio.FunctionDataSource(dataset, splits=("train",))


def _load(path: pathlib.Path, *keys: str) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; set RT2_DATA_DIR to the folder above the data")
    data = json.loads(path.read_text(encoding="utf-8"))
    missing = [key for key in keys if key not in data]
    if missing:
        raise ValueError(f"{path}: missing keys {missing}, found {sorted(data)}")
    return data


def _look_up(table: Mapping[Any, str], key: Any, path: pathlib.Path, name: str) -> str:
    if key not in table:
        raise ValueError(f"{path}: {name} {key} of an annotation is described nowhere")
    return table[key]
