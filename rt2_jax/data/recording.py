"""What a recording of robot episodes says about itself, in `metadata.json` beside the episodes.

Reading it needs neither TensorFlow nor tensorflow-datasets, which finds the same file by its name.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from rt2_jax.actions.identity import check_keys
from rt2_jax.actions.space import ActionSpace

VERSION = "2.0.0"  # of the fields and their meaning
IMAGE_FORMATS: Mapping[str, Mapping[str, Any]] = {
    "png": {"compress_level": 6},
    "jpeg": {"quality": 95, "subsampling": 0},
}
"""How pictures are compressed: Pillow's options by format."""

_KEY = "rt2_recording"  # of this project's part of metadata.json
_NAMES = ("state_fields", "points", "cameras")  # of `RecordingInfo`: tuples
_METADATA_FILE = "metadata.json"  # where tensorflow-datasets looks for it too


@dataclasses.dataclass(frozen=True)
class RecordingInfo:
    """What a recording's numbers mean, and what it was made of.

    Attributes:
      name: of the data set, in lower case with underscores.
      embodiment: the robot's name; with the action space it is the key of its statistics.
      action_space: of `action` and `executed_action`.
      state_fields: names of the proprioceptive state's numbers.
      points: names of what is told of every step by its place; () for nothing.
      cameras: whose pictures an observation holds.
      height: of the pictures, in pixels.
      width: of the pictures, in pixels.
      image_format: one of `IMAGE_FORMATS`.
      disturbed: whether other actions were executed than those that are shown for imitation.
      episodes: how many there are.
      shard_episodes: how many a file holds; the last one may hold fewer.
      origin: plain JSON, everything else that decides what the episodes are.

    Raises:
      ValueError: an unknown image format, no camera or one twice, or no episode.
    """

    name: str
    embodiment: str
    action_space: ActionSpace
    state_fields: tuple[str, ...]
    points: tuple[str, ...]
    cameras: tuple[str, ...]
    height: int
    width: int
    image_format: str
    disturbed: bool
    episodes: int
    shard_episodes: int
    origin: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.image_format not in IMAGE_FORMATS:
            known = ", ".join(IMAGE_FORMATS)
            raise ValueError(f"image format: found {self.image_format!r}, expected one of {known}")
        if not self.cameras or len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"cameras: found {list(self.cameras)}, expected some, each once")
        for name in ("episodes", "shard_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 1 or more")

    @property
    def shards(self) -> tuple[range, ...]:
        """The numbers of the episodes that each shard holds."""
        starts = range(0, self.episodes, self.shard_episodes)
        return tuple(range(s, min(s + self.shard_episodes, self.episodes)) for s in starts)

    def shard_file(self, shard: int) -> str:
        """The name of a shard's file, as tensorflow-datasets expects it."""
        return f"{self.name}-train.tfrecord-{shard:05d}-of-{len(self.shards):05d}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the action space's hash."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        data["action_space"] = self.action_space.to_json()
        data["action_space_hash"] = self.action_space.hash
        for name in _NAMES:
            data[name] = list(data[name])
        return data

    @classmethod
    def from_json(cls, data: Any) -> RecordingInfo:
        """Reads what `to_json` wrote.

        Raises:
          KeyError: a key is missing or unknown. ValueError: the action space is not the hashed one.
        """
        names = tuple(field.name for field in dataclasses.fields(cls))
        check_keys("recording", data, (*names, "action_space_hash"))
        values = {name: data[name] for name in names}
        space = values["action_space"] = ActionSpace.from_json(data["action_space"])
        if space.hash != data["action_space_hash"]:
            raise ValueError(
                f"action space {space.name!r}: its hash is {space.hash[:12]}, but it was recorded "
                f"as {data['action_space_hash'][:12]}; somebody has edited it"
            )
        return cls(**{**values, **{name: tuple(values[name]) for name in _NAMES}})


@dataclasses.dataclass(frozen=True)
class Recording:
    """A finished recording: where it is, what it means and how many episodes succeeded."""

    directory: pathlib.Path
    info: RecordingInfo
    successes: int


def read_recording(directory: str | pathlib.Path) -> Recording:
    """Reads what a finished recording says about itself.

    Args:
      directory: the one with `features.json`, which `tfds.builder_from_directory` takes too.

    Raises:
      FileNotFoundError: no such folder, or a shard is missing.
      ValueError: not a recording of this project, one of another version, or unfinished.
      KeyError: the metadata is not what this version writes.
    """
    directory = pathlib.Path(directory)
    info, successes = read_metadata(directory)
    if successes is None:
        raise ValueError(
            f"{directory} is an unfinished recording; run the command that began it again"
        )
    for shard in range(len(info.shards)):
        if not (directory / info.shard_file(shard)).is_file():
            raise FileNotFoundError(
                f"{directory} lacks {info.shard_file(shard)}; copy the recording again, or delete "
                "it and record it again"
            )
    return Recording(directory, info, successes)


def read_metadata(directory: pathlib.Path) -> tuple[RecordingInfo, int | None]:
    """What a recording is, and if it is finished how many episodes succeeded."""
    if not directory.is_dir():
        raise FileNotFoundError(f"no folder {directory}; expected a recording, OUT/NAME/{VERSION}")
    path = directory / _METADATA_FILE
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        data = {}
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, Mapping) or _KEY not in data:
        raise ValueError(
            f"{directory} is no recording of this package: there is no {_KEY!r} in "
            f"{_METADATA_FILE}, so nothing says what its actions mean; expected a folder "
            f"OUT/NAME/{VERSION}"
        )
    if data.get("version") != VERSION:
        raise ValueError(
            f"{path}: found a recording of version {data.get('version')!r}, this package reads "
            f"{VERSION!r}; record it again, or use the package that made it"
        )
    return RecordingInfo.from_json(data[_KEY]), data.get("successes")


def write_metadata(directory: pathlib.Path, info: RecordingInfo, successes: int | None) -> None:
    """Writes `metadata.json`; `successes` is None as long as episodes are missing.

    It is whole or missing: it is written beside the folder, and then moved.
    """
    data = {"version": VERSION, "successes": successes, _KEY: info.to_json()}
    unfinished = directory.with_name(f"{directory.name}.{_METADATA_FILE}")
    unfinished.write_text(json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n")
    unfinished.replace(directory / _METADATA_FILE)
