"""Files in COCO's format, read without TensorFlow: photos and the things boxed in them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BoxedThing:
    """A thing in a photo.

    Attributes:
      name: of its category.
      box: left, top, width and height, as fractions of the photo's sides.
    """

    name: str
    box: tuple[float, float, float, float]

    @property
    def middle(self) -> tuple[float, float]:
        """(y, x), as fractions of the photo's sides."""
        left, top, width, height = self.box
        return top + height / 2, left + width / 2


@dataclass(frozen=True)
class BoxedPhoto:
    """A photo with its things, in the order of the file.

    Attributes:
      id: of the photo.
      file: its name in the folder of photos.
      things: those that were boxed one by one (no crowds).
      crowds: names of what is there as a crowd.
    """

    id: int
    file: str
    things: tuple[BoxedThing, ...]
    crowds: frozenset[str] = frozenset()

    @property
    def names(self) -> set[str]:
        """Of everything in the photo, crowds too."""
        return {thing.name for thing in self.things} | self.crowds

    def unique(self) -> list[BoxedThing]:
        """The things whose name no other thing in the photo has: they can be pointed to."""
        names = [thing.name for thing in self.things]
        return [thing for thing in self.things if names.count(thing.name) == 1]


def read_boxes(path: pathlib.Path) -> list[BoxedPhoto]:
    """The photos of a COCO `instances.json`, in its order; those without a box too.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not COCO's format; the message names what is missing.
    """
    data = load_json(path, "images", "annotations", "categories")
    try:
        return _photos(data, path)
    except KeyError as error:
        raise ValueError(f"{path}: not in COCO's format (an entry has no {error})") from error


def _photos(data: Mapping[str, Any], path: pathlib.Path) -> list[BoxedPhoto]:
    names = {category["id"]: category["name"] for category in data["categories"]}
    things: dict[Any, list[BoxedThing]] = {image["id"]: [] for image in data["images"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in data["images"]}
    crowds: dict[Any, set[str]] = {}
    for entry in data["annotations"]:
        image = entry["image_id"]
        name = look_up(names, entry["category_id"], path, "category_id")
        wide, high = look_up(sizes, image, path, "image_id")
        if entry.get("iscrowd"):
            crowds.setdefault(image, set()).add(name)
            continue
        left, top, width, height = entry["bbox"]
        box = (left / wide, top / high, width / wide, height / high)
        if min(box) < -1e-3 or box[0] + box[2] > 1.001 or box[1] + box[3] > 1.001:
            raise ValueError(
                f"{path}: annotation {entry['id']}: bbox {entry['bbox']} is not inside the "
                f"{wide} x {high} pixels of image {image}"
            )
        things[image].append(BoxedThing(name, box))
    photos = []
    for image in data["images"]:
        crowded = frozenset(crowds.get(image["id"], ()))
        # One of a crowd cannot be told from the others.
        alone = tuple(each for each in things[image["id"]] if each.name not in crowded)
        photos.append(BoxedPhoto(image["id"], image["file_name"], alone, crowded))
    return photos


def load_json(path: pathlib.Path, *keys: str) -> Any:
    """A JSON file, an object with these keys where there are any.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no JSON, or a key is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; set RT2_DATA_DIR to the folder above the data")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged, not JSON ({error})") from error
    missing = [key for key in keys if not isinstance(data, dict) or key not in data]
    if missing:
        found = sorted(data) if isinstance(data, dict) else type(data).__name__
        raise ValueError(f"{path}: missing keys {missing}, found {found}")
    return data


def look_up(table: Mapping[Any, Any], key: Any, path: pathlib.Path, name: str) -> Any:
    """What an annotation refers to.

    Raises:
      ValueError: it is not there.
    """
    if key not in table:
        raise ValueError(f"{path}: {name} {key} of an annotation is described nowhere")
    return table[key]
