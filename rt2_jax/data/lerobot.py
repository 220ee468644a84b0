"""What a LeRobot data set says about itself: versions 2.0, 2.1 and 3.0, read in place.

Version 2 (`huggingface/lerobot`, `datasets/utils.py` of releases 0.1 to 0.3) has a parquet file for
each episode and a video for each episode and camera. Version 3 (`datasets/dataset_metadata.py` and
`v30/convert_dataset_v21_to_v30.py` of 0.4) puts many episodes into a file; `meta/episodes` says
which file holds an episode's rows, and for each camera the video and the second where it begins.

The `lerobot` package is not needed, nor TensorFlow.
"""

from __future__ import annotations

import bisect
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet

VERSIONS = ("v2.0", "v2.1", "v3.0")
_CAMERA_KINDS = ("video", "image")
_NOT_NUMBERS = (*_CAMERA_KINDS, "string", "audio", "language")
# pandas' name of an index without one; the texts of tasks are the index of their table.
_TASK_COLUMNS = ("task", "__index_level_0__")


@dataclass(frozen=True)
class Column:
    """A feature of info.json.

    Attributes:
      kind: `video` or `image` (struct of encoded bytes and path in the parquet file) for a camera;
        else the dtype.
      names: of the numbers, each once; () for a camera or a text.
      depth: whether the pictures of a camera are distances.
    """

    kind: str
    names: tuple[str, ...]
    depth: bool = False


@dataclass(frozen=True)
class Episode:
    """Where an episode is.

    Attributes:
      index: the data set's own number.
      length: how many frames.
      rows: the parquet file that holds its rows, and maybe those of others.
      videos: camera -> the file, and the second in it of the episode's first frame.
    """

    index: int
    length: int
    rows: pathlib.Path
    videos: Mapping[str, tuple[pathlib.Path, float]]

    @property
    def name(self) -> str:
        """As LeRobot's version 2 names its files."""
        return f"episode_{self.index:06d}"


@dataclass(frozen=True)
class LeRobotFolder:
    """A data set: `directory`, `fps`, the columns by key, instructions by number, all episodes."""

    directory: pathlib.Path
    fps: float
    columns: Mapping[str, Column]
    tasks: Mapping[int, str]
    episodes: tuple[Episode, ...]

    @property
    def cameras(self) -> tuple[str, ...]:
        """Keys of all columns that are pictures."""
        return tuple(key for key, column in self.columns.items() if column.kind in _CAMERA_KINDS)

    def camera(self, key: str) -> Column:
        """A camera's column.

        Raises:
          ValueError: there is no such camera, or it sees distances.
        """
        if key not in self.cameras:
            raise ValueError(f"{self.directory}: no camera {key!r}; there are {list(self.cameras)}")
        if self.columns[key].depth:
            raise ValueError(f"{self.directory}: camera {key!r} sees distances, expected colours")
        return self.columns[key]

    def positions(self, columns: Sequence[str], names: Sequence[str]) -> list[int]:
        """Where the numbers of these names stand in the columns, one behind the other.

        Raises:
          ValueError: no such column or name.
        """
        known = names_of(self.columns, columns, self.directory)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(
                f"{self.directory}: {', '.join(columns)}: no numbers {unknown}; there are {known}"
            )
        return [known.index(name) for name in names]

    def select(self, split: str | Sequence[int]) -> tuple[Episode, ...]:
        """Episodes in the order of their numbers.

        Args:
          split: their numbers, or a range of them as LeRobot's own splits are written ("0:80", the
            end left out), or of the share that they are of all ("90%:").

        Raises:
          ValueError: not such a range, an episode that does not exist, or none at all.
        """
        if isinstance(split, str):
            bounds = split.replace(" ", "").split(":")
            if len(bounds) != 2:
                raise ValueError(f"split {split!r}: expected two bounds as in '0:80' or '90%:'")
            first, last = bounds
            chosen = self.episodes[self._place(first or "0%") : self._place(last or "100%")]
        else:
            wanted = set(split)
            chosen = tuple(episode for episode in self.episodes if episode.index in wanted)
            missing = sorted(wanted - {episode.index for episode in chosen})
            if missing:
                raise ValueError(
                    f"{self.directory}: no episodes {missing}; there are {len(self.episodes)}"
                )
        if not chosen:
            raise ValueError(
                f"{self.directory}: split {split!r} holds none of the {len(self.episodes)} episodes"
            )
        return chosen

    def _place(self, bound: str) -> int:
        """The place among the episodes of a share of them, or of the first from a number on."""
        number = bound.removesuffix("%")
        if not number.isdecimal():
            raise ValueError(f"{self.directory}: bound {bound!r} of a split is no number")
        if bound != number:
            return round(int(number) * len(self.episodes) / 100)
        return bisect.bisect_left(self.episodes, int(number), key=lambda episode: episode.index)


def read_lerobot(directory: pathlib.Path) -> LeRobotFolder:
    """Reads a data set's `meta`.

    Raises:
      FileNotFoundError: no such folder, or a file of `meta` is missing.
      ValueError: another version, or a file that does not hold what its version says.
    """
    info = _read_info(directory)
    columns = _read_columns(info, directory)
    videos = [key for key, column in columns.items() if column.kind == "video"]
    read = _read_v3 if info["codebase_version"] == "v3.0" else _read_v2
    try:
        fps = float(info["fps"])
        tasks, episodes = read(directory, info, videos)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{directory / 'meta'}: lacks {error}") from error
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"{directory / 'meta/info.json'}: fps is {fps}, expected more than 0")
    ordered = tuple(sorted(episodes, key=lambda episode: episode.index))
    return LeRobotFolder(directory, fps, columns, tasks, ordered)


def read_names(directory: pathlib.Path, columns: Sequence[str]) -> tuple[str, ...]:
    """The names of the numbers of these columns, one behind the other, from info.json.

    A number without a name, or with one that occurs twice, is called by its place: `action_0`.

    Raises:
      FileNotFoundError, ValueError: as `read_lerobot`; or a column that is not there or no numbers.
    """
    return tuple(names_of(_read_columns(_read_info(directory), directory), columns, directory))


def names_of(
    known: Mapping[str, Column], columns: Sequence[str], directory: pathlib.Path
) -> list[str]:
    """As `read_names`, for columns that have been read."""
    numbers = [key for key, column in known.items() if column.names]
    for key in columns:
        if key not in numbers:
            raise ValueError(f"{directory}: no column {key!r} of numbers; there are {numbers}")
    names = [name for key in columns for name in known[key].names]
    if len(set(names)) < len(names):  # two arms with joints of the same names
        names = [f"{key}.{name}" for key in columns for name in known[key].names]
    return names


def _read_info(directory: pathlib.Path) -> dict[str, Any]:
    path = directory / "meta/info.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"no LeRobot data set at {directory}: expected a folder with meta/info.json; set "
            "RT2_DATA_DIR to the folder above"
        )
    info = _parse(path.read_text(encoding="utf-8"), path)
    version = info.get("codebase_version")
    if version not in VERSIONS:
        raise ValueError(
            f"{path}: found version {version!r}, expected one of {', '.join(VERSIONS)}; the "
            "lerobot package converts older data sets"
        )
    return info


def _parse(text: str, path: pathlib.Path) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(data).__name__}")
    return data


def _read_columns(info: Mapping[str, Any], directory: pathlib.Path) -> dict[str, Column]:
    try:
        return {key: _column(key, feature) for key, feature in info["features"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{directory / 'meta/info.json'}: features: lacks {error}") from error


def _column(key: str, feature: Mapping[str, Any]) -> Column:
    kind = feature["dtype"]
    if kind in _NOT_NUMBERS:
        details = feature.get("info") or feature.get("video_info") or {}
        depth = details.get("is_depth_map", details.get("video.is_depth_map", False))
        return Column(kind, (), bool(depth))
    size = math.prod(feature["shape"])
    names = _flat_names(feature.get("names"))
    if len(names) != size:  # no names, or one for all of them
        names = [""] * size
    short = key.rsplit(".", 1)[-1]
    if size == 1 and not names[0]:
        return Column(kind, (short,))
    named = [
        name if name and names.count(name) == 1 else f"{name or short}_{place}"
        for place, name in enumerate(names)
    ]
    return Column(kind, tuple(named))


def _flat_names(names: Any) -> list[str]:
    """Names as data sets have them: lists, lists in lists, `{"motors": [...]}`, name -> place."""
    if isinstance(names, Mapping):
        if all(isinstance(value, int) for value in names.values()):
            return sorted(names, key=lambda name: names[name])
        return _flat_names(list(names.values()))
    if isinstance(names, list):
        return [name for each in names for name in _flat_names(each)]
    return [] if names is None else [str(names)]


def _read_v2(
    directory: pathlib.Path, info: Mapping[str, Any], videos: Sequence[str]
) -> tuple[dict[int, str], list[Episode]]:
    tasks = {row["task_index"]: row["task"] for row in _json_lines(directory / "meta/tasks.jsonl")}
    episodes = []
    for row in _json_lines(directory / "meta/episodes.jsonl"):
        index = row["episode_index"]
        place = {
            "episode_index": index,
            "episode_chunk": index // info["chunks_size"],
            "total_episodes": info["total_episodes"],
        }
        files = {
            key: (directory / info["video_path"].format(video_key=key, **place), 0.0)
            for key in videos
        }
        rows = directory / info["data_path"].format(**place)
        episodes.append(Episode(index, row["length"], rows, files))
    return tasks, episodes


def _json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; copy the LeRobot data set again")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_parse(line, path) for line in lines if line.strip()]


def _read_v3(
    directory: pathlib.Path, info: Mapping[str, Any], videos: Sequence[str]
) -> tuple[dict[int, str], list[Episode]]:
    path = directory / "meta/tasks.parquet"
    table = open_parquet(path).read()
    texts = [name for name in _TASK_COLUMNS if name in table.column_names]
    if not texts:
        raise KeyError(f"a column {' or '.join(_TASK_COLUMNS)} in {path.name}")
    numbers = table["task_index"].to_pylist()
    tasks = dict(zip(numbers, table[texts[0]].to_pylist(), strict=True))

    where = ("chunk_index", "file_index")
    columns = ["episode_index", "length", *(f"data/{name}" for name in where)]
    columns += [f"videos/{key}/{name}" for key in videos for name in (*where, "from_timestamp")]
    episodes = []
    for path in sorted((directory / "meta/episodes").glob("*/*.parquet")):
        file = open_parquet(path)
        lacking = [name for name in columns if name not in file.schema_arrow.names]
        if lacking:
            raise KeyError(f"{lacking} in {path.relative_to(directory)}")
        # Statistics of each episode are most of the file, and nothing reads them.
        for row in file.read(columns=columns).to_pylist():
            files = {
                key: (
                    directory
                    / info["video_path"].format(
                        video_key=key, **{name: row[f"videos/{key}/{name}"] for name in where}
                    ),
                    row[f"videos/{key}/from_timestamp"],
                )
                for key in videos
            }
            data = info["data_path"].format(**{name: row[f"data/{name}"] for name in where})
            episodes.append(Episode(row["episode_index"], row["length"], directory / data, files))
    if not episodes:
        raise FileNotFoundError(f"no file {directory / 'meta/episodes'}/chunk-*/file-*.parquet")
    return tasks, episodes


def open_parquet(path: pathlib.Path) -> pyarrow.parquet.ParquetFile:
    """A parquet file, of which only the footer is read.

    Raises:
      FileNotFoundError: it is not there. ValueError: it is no parquet file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; copy the LeRobot data set again")
    try:
        return pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20)
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path}: no whole parquet file ({error}); copy it again") from error
