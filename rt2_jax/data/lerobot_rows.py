"""Rows of the parquet files of a LeRobot data set, some at a time."""

from __future__ import annotations

import itertools
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from rt2_jax.data.lerobot import Episode, LeRobotFolder, open_parquet

_ROWS = 64  # in memory at once, of which each may hold pictures of all cameras
_KEYS = ("episode_index", "frame_index", "timestamp", "task_index")

Row = Mapping[str, Any]


def read_rows(
    folder: LeRobotFolder,
    episodes: Sequence[Episode],
    numbers: Sequence[str],
    pictures: Sequence[str],
) -> Iterator[tuple[Episode, Iterator[Row]]]:
    """Each episode with its rows, which have to be taken before the next episode's.

    A file is read once for all of its episodes, wherever they stand in it.

    Args:
      folder: the data set.
      episodes: in the order of their numbers, which is that of the files too.
      numbers: keys of columns that become float32 [size].
      pictures: keys of columns that become encoded pictures, bytes.

    Yields:
      The episode and its rows, which hold `text` (the instruction) and these columns.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a column is missing or holds something else, a row has no instruction, or the rows
        of an episode are not its frames in order; the message names file, episode and frame.
    """
    for path, group in itertools.groupby(episodes, key=lambda episode: episode.rows):
        expected = list(group)
        rows = _rows_of(path, {e.index for e in expected}, folder, numbers, pictures)
        found = itertools.groupby(rows, key=lambda row: row["episode_index"])
        for episode in expected:
            index, own = next(found, (None, iter(())))
            if index != episode.index:
                raise ValueError(
                    f"{path}: expected rows of {episode.name} here, found "
                    + ("no more" if index is None else f"those of episode {index}")
                )
            yield episode, _in_order(own, episode, folder)


def _in_order(
    rows: Iterator[dict[str, Any]], episode: Episode, folder: LeRobotFolder
) -> Iterator[Row]:
    """Checks that these rows are the episode's frames, and adds their instruction."""
    count = 0
    for row in rows:
        where = f"{episode.rows}, {episode.name}, frame {count}"
        time = row["timestamp"]
        frame = round(time * folder.fps) if math.isfinite(time) else None
        if (row["frame_index"], frame) != (count, count) or count == episode.length:
            raise ValueError(
                f"{where}: found frame_index {row['frame_index']} at {time:.6f} s, expected "
                f"{count} at {count / folder.fps:.6f} s and {episode.length} rows in all"
            )
        text = folder.tasks.get(row["task_index"])
        if text is None:
            raise ValueError(
                f"{where}: task_index {row['task_index']} has no instruction in {folder.directory}"
                f"/meta; there are {sorted(folder.tasks)}"
            )
        yield {**row, "text": text}
        count += 1
    if count != episode.length:
        raise ValueError(
            f"{episode.rows}: {episode.name} has {count} rows, expected {episode.length}"
        )


def _rows_of(
    path: pathlib.Path,
    episodes: set[int],
    folder: LeRobotFolder,
    numbers: Sequence[str],
    pictures: Sequence[str],
) -> Iterator[dict[str, Any]]:
    file = open_parquet(path)
    columns = list(dict.fromkeys([*_KEYS, *numbers, *pictures]))
    lacking = [name for name in columns if name not in file.schema_arrow.names]
    if lacking:
        raise ValueError(f"{path}: no columns {lacking}; there are {file.schema_arrow.names}")
    groups = [g for g in range(file.num_row_groups) if _may_hold(file, g, episodes)]
    for batch in file.iter_batches(_ROWS, row_groups=groups, columns=columns):
        empty = [name for name in _KEYS if batch.column(name).null_count]
        if empty:
            raise ValueError(f"{path}: there are rows without {empty}")
        keys = {name: batch.column(name).to_pylist() for name in _KEYS}
        keep = [row for row in range(batch.num_rows) if keys["episode_index"][row] in episodes]
        if not keep:
            continue
        values = {
            key: _matrix(batch.column(key), len(folder.columns[key].names), f"{path}: {key}")
            for key in numbers
        }
        images = {key: batch.column(key) for key in pictures}
        for row in keep:
            yield {
                **{name: keys[name][row] for name in _KEYS},
                **{key: matrix[row] for key, matrix in values.items()},
                **{key: _picture(column[row], folder, key) for key, column in images.items()},
            }


def _may_hold(file: pyarrow.parquet.ParquetFile, group: int, episodes: set[int]) -> bool:
    """Whether a row group's own statistics allow rows of these episodes in it."""
    metadata = file.metadata.row_group(group)
    for column in map(metadata.column, range(metadata.num_columns)):
        statistics = column.statistics
        if column.path_in_schema == "episode_index" and statistics and statistics.has_min_max:
            return any(statistics.min <= index <= statistics.max for index in episodes)
    return True


def _matrix(column: pyarrow.Array, size: int, where: str) -> np.ndarray:
    """Float32 [rows, size] of scalars or of lists, in whichever way they are nested."""
    rows = len(column)
    while isinstance(column, pyarrow.ExtensionArray):
        column = column.storage
    while pyarrow.types.is_nested(column.type):
        column = column.flatten()
    if column.null_count or len(column) != rows * size:
        raise ValueError(
            f"{where}: found {len(column) - column.null_count} numbers in {rows} rows, expected "
            f"{size} in each"
        )
    return column.to_numpy(zero_copy_only=False).astype(np.float32).reshape(rows, size)


def _picture(cell: Any, folder: LeRobotFolder, key: str) -> bytes:
    """The encoded picture of an image column: its bytes, or those of the file that it names."""
    value = cell.as_py()
    if not isinstance(value, Mapping) or not (value.get("bytes") or value.get("path")):
        raise ValueError(f"{folder.directory}: {key}: found {value!r}, expected bytes or a path")
    if value.get("bytes"):
        return bytes(value["bytes"])
    return (folder.directory / value["path"]).read_bytes()
