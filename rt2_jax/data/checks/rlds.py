"""Checks of an RLDS data set as it was published, columns that no task reads included."""

from __future__ import annotations

import hashlib
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.data.checks.finding import Finding, Place
from rt2_jax.data.checks.survey import Seen, picture_kind

_FLAG = "has_"
_IDS = ("episode_id", "file_path", "trajectory_id")
_TEXT_FLAGS = ("language", "instruction")


@dataclass
class RldsSplit:
    """What a raw split holds.

    Attributes:
      name: of the split.
      episodes: how many were read.
      steps: how many were read.
      pictures: how many each observation column holds.
      blank: how many of them are black or of one colour.
      marks: sightings of wrong `is_first`, `is_last` and `is_terminal`.
      flags: sightings of `has_...` metadata that contradict the episode, by (flag, value).
      digests: of the numbers of each episode.
    """

    name: str
    episodes: int = 0
    steps: int = 0
    pictures: dict[str, int] = field(default_factory=dict)
    blank: dict[str, int] = field(default_factory=dict)
    marks: dict[str, Seen] = field(default_factory=dict)
    flags: dict[tuple[str, bool], Seen] = field(default_factory=dict)
    digests: dict[bytes, Place] = field(default_factory=dict)


def read_rlds(
    directory: pathlib.Path,
    *,
    episodes: int | None = None,
    report: Callable[[int], None] = lambda steps: None,
) -> list[RldsSplit]:
    """Reads every split of a data set once.

    Args:
      directory: the one with `features.json`.
      episodes: how many of each split; None for all.
      report: called with the number of steps after each episode.

    Raises:
      ValueError: a file of it is damaged.
    """
    builder = tfds.builder_from_directory(directory)
    images = {
        key: tfds.decode.SkipDecoding()
        for key, feature in builder.info.features["steps"]["observation"].items()
        if isinstance(feature, tfds.features.Image)
    }
    splits, total = [], 0
    for name in builder.info.splits:
        split = RldsSplit(name)
        dataset = builder.as_dataset(
            split=name,
            decoders={"steps": {"observation": images}},
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
        )
        try:
            for episode in itertools.islice(dataset, episodes):
                add_episode(split, episode, tuple(images))
                report(total + split.steps)
        except tf.errors.OpError as error:
            line = error.message.strip().splitlines()[0]
            raise ValueError(f"{directory}, split {name!r}: cannot be read: {line}") from error
        total += split.steps
        splits.append(split)
    return splits


def add_episode(split: RldsSplit, episode: Mapping[str, Any], images: tuple[str, ...]) -> None:
    """Adds what an episode holds; the pictures of the columns `images` are encoded."""
    metadata = dict(tfds.as_numpy(episode.get("episode_metadata", {})))
    name = next((_text(metadata[key]) for key in _IDS if key in metadata), str(split.episodes))
    steps = list(tfds.as_numpy(episode["steps"]))
    last = len(steps) - 1
    shown = dict.fromkeys(images, False)
    spoken, digest, moves = False, hashlib.blake2b(digest_size=12), set()
    for number, step in enumerate(steps):
        place = Place(split.episodes, name, number)
        for key in images:
            blank = picture_kind(step["observation"][key]) != ""
            split.pictures[key] = split.pictures.get(key, 0) + 1
            split.blank[key] = split.blank.get(key, 0) + blank
            shown[key] = shown[key] or not blank
        wrong = {
            "is_first": step.get("is_first", number == 0) != (number == 0),
            "is_last": step.get("is_last", number == last) != (number == last),
            "is_terminal": number < last and bool(step.get("is_terminal", False)),
        }
        for mark in (mark for mark, bad in wrong.items() if bad):
            split.marks.setdefault(mark, Seen()).add(place)
        texts, numbers = _leaves(step)
        spoken = spoken or any(texts)
        digest.update(numbers)
        moves.add(numbers)
    for key, value in metadata.items():
        about = key.removeprefix(_FLAG)
        real = shown.get(about, spoken if about in _TEXT_FLAGS else None)
        if key.startswith(_FLAG) and real is not None and bool(value) != real:
            seen = split.flags.setdefault((key, bool(value)), Seen())
            seen.add(Place(split.episodes, name, 0))
    if len(moves) > 1:
        split.digests.setdefault(digest.digest(), Place(split.episodes, name, 0))
    split.episodes += 1
    split.steps += len(steps)


def _leaves(step: Mapping[str, Any]) -> tuple[list[bytes], bytes]:
    """The texts of a step outside its observation, and the bytes of all its numbers."""
    texts, numbers = [], []
    for path, value in sorted(_flat(step)):
        array = np.asarray(value)
        if array.dtype.kind in "fiu":
            numbers.append(array.tobytes())
        elif array.dtype.kind in "OS" and not path.startswith("observation/"):
            texts += [text for text in array.reshape(-1).tolist() if text]
    return texts, b"".join(numbers)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def check_rlds(splits: list[RldsSplit]) -> Iterator[Finding]:
    """Blank columns, wrong step marks, lying flags, and splits that are the same."""
    for split in splits:
        yield from _check_pictures(split)
        yield from _check_marks(split)
        yield from _check_flags(split)
    for left, right in itertools.combinations(splits, 2):
        same = left.digests.keys() & right.digests.keys()
        if same:
            yield Finding(
                "warning",
                "duplicate-raw-splits",
                "",
                f"{len(same)} of {right.episodes} episodes of {right.name!r} are in "
                f"{left.name!r} ({left.episodes} episodes), too",
                "hold out a slice of one split, e.g. train[90%:]; do not evaluate on the other",
                f"raw {right.name}",
                min(right.digests[digest] for digest in same),
            )


def _check_pictures(split: RldsSplit) -> Iterator[Finding]:
    for key, blank in split.blank.items():
        if blank:
            count = "all" if blank == split.pictures[key] else f"{blank} of"
            yield Finding(
                "warning",
                "blank-column",
                f"observation {key}",
                f"{count} {split.pictures[key]} pictures are blank or damaged",
                "do not register it as a view, or leave episodes without it out",
                f"raw {split.name}",
            )


def _check_marks(split: RldsSplit) -> Iterator[Finding]:
    wrong = {
        "is_first": "is not true at the first step alone",
        "is_last": "is not true at the last step alone: cut episodes, or a mark that lies",
        "is_terminal": "is true before the last step",
    }
    for mark, seen in split.marks.items():
        yield Finding(
            "warning",
            "step-marks",
            mark,
            f"{wrong[mark]} ({seen.count} steps in {split.episodes} episodes)",
            "do not take the end of an episode from it; use the last step of the episode",
            f"raw {split.name}",
            seen.first,
        )


def _check_flags(split: RldsSplit) -> Iterator[Finding]:
    alike: dict[tuple[bool, int], list[str]] = {}
    for (flag, value), seen in split.flags.items():
        alike.setdefault((value, seen.count), []).append(flag)
    for (value, count), flags in alike.items():
        yield Finding(
            "warning",
            "lying-flag",
            "episode_metadata " + ", ".join(flags),
            f"{value} in {count} of {split.episodes} episodes that {'lack' if value else 'have'} "
            + ", ".join(flag.removeprefix(_FLAG) for flag in flags),
            "do not filter by it; look at the data themselves",
            f"raw {split.name}",
            split.flags[flags[0], value].first,
        )
