"""LeRobot data sets as SeqIO sources of steps, and a robot task of one in a single call."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from rt2_jax.actions.space import ActionSpace
from rt2_jax.data.image import decode_image, encode_image, resize
from rt2_jax.data.lerobot import Episode, LeRobotFolder, read_lerobot, read_names
from rt2_jax.data.lerobot_rows import Row, read_rows
from rt2_jax.data.lerobot_video import read_frames
from rt2_jax.data.recording import IMAGE_FORMATS
from rt2_jax.data.registration import STEP_FEATURES, data_path, robot_task
from rt2_jax.data.sharded_source import ShardedSource, chosen
from rt2_jax.data.task_info import ROBOT_PROMPT

_FIELDS = ("images", "text", "action", "state", "episode", "step", "episode_id")
_SIGNATURE = {
    name: tf.TensorSpec([None] * STEP_FEATURES[name].rank, STEP_FEATURES[name].dtype)
    for name in _FIELDS
}
_TERMINATE = "terminate"
_BLOCK, _MOST_BLOCKS = 16, 256  # episodes to a block of a split, and blocks to a split


def lerobot_names(folder: str, *columns: str) -> tuple[str, ...]:
    """Names of the numbers of a LeRobot data set's columns, one behind the other.

    A number without a name is called by its place: `action_0`.

    Args:
      folder: with `meta/info.json`, which is read; relative to `data_path`.
      columns: e.g. `action`, or `observation.state`.

    Raises:
      FileNotFoundError: the data set is not here.
      ValueError: another version, or a column that is not there.
    """
    return read_names(data_path(folder), columns)


@dataclass(frozen=True)
class LeRobotSteps:
    """What of a LeRobot data set becomes a step.

    Attributes:
      folder: with `meta/info.json`; relative to `data_path`.
      cameras: view -> key of a camera, e.g. `{"front": "observation.images.cam_high"}`.
      action_space: its fields are found by name in the action columns; `terminate`, where the space
        has it, is 0 at the last frame of an episode and 1 before.
      action_columns: keys, whose numbers stand one behind the other.
      field_names: field of the space -> name in the data set, where they differ.
      state_fields: names in the state columns; () for no state.
      state_columns: keys.
      image_size: (height, width) that pictures are resized to, without regard to the aspect ratio.
      longest_side: that larger pictures are shrunk to; the aspect ratio is kept.
      image_format: `jpeg` (quality 95, colours at full resolution) or `png`. Pictures that are
        stored as such and need no resizing stay as they are, byte for byte.
    """

    folder: str
    cameras: Mapping[str, str]
    action_space: ActionSpace
    action_columns: Sequence[str] = ("action",)
    field_names: Mapping[str, str] | None = None
    state_fields: Sequence[str] = ()
    state_columns: Sequence[str] = ("observation.state",)
    image_size: tuple[int, int] | None = None
    longest_side: int | None = None
    image_format: str = "jpeg"

    def __post_init__(self) -> None:
        if self.image_size and self.longest_side:
            raise ValueError(
                f"{self.folder}: found both image_size {self.image_size} and longest_side "
                f"{self.longest_side}, expected one of them"
            )
        if self.image_format not in IMAGE_FORMATS:
            raise ValueError(
                f"{self.folder}: image format {self.image_format!r} is not one of "
                f"{list(IMAGE_FORMATS)}"
            )
        for field in self.field_names or {}:
            self.action_space.index(field)

    def blocks(self, split: str | Sequence[int]) -> list[range]:
        """Blocks of the episodes of a split, by their places among them.

        They depend on the number of episodes alone: of 16 each, larger where these would be more
        than 256, since each that is read alone reads all of `meta`.

        Raises:
          FileNotFoundError, ValueError: as `read`.
        """
        count = len(read_lerobot(data_path(self.folder)).select(split))
        size = max(_BLOCK, -(-count // _MOST_BLOCKS))
        return [range(first, min(first + size, count)) for first in range(0, count, size)]

    def read(
        self, split: str | Sequence[int], blocks: Sequence[range] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The steps of a split, in order; see `LeRobotFolder.select`.

        All that can be known from `meta` and the names of files is checked before the first step.

        Args:
          split: which episodes.
          blocks: some of them, by their places, see `blocks`; None for all.

        Raises:
          FileNotFoundError: a file is missing.
          ValueError: the data set is not what this expects, or its files disagree.
        """
        folder = read_lerobot(data_path(self.folder))
        selected = folder.select(split)
        places = list(itertools.chain(*([range(len(selected))] if blocks is None else blocks)))
        episodes = [selected[place] for place in places]
        for key in self.cameras.values():
            folder.camera(key)
        rate = self.action_space.control_rate_hz
        if abs(folder.fps - rate) > 1e-3 * rate:
            raise ValueError(
                f"{folder.directory}: was recorded at {folder.fps:g} frames per second, but action "
                f"space {self.action_space.name!r} says {rate:g} Hz"
            )
        renamed = self.field_names or {}
        fields = [name for name in self.action_space.names if name != _TERMINATE]
        action = folder.positions(self.action_columns, [renamed.get(f, f) for f in fields])
        state = folder.positions(self._states, self.state_fields)
        _check_files(folder, episodes, list(self.cameras.values()))
        return self._steps(folder, episodes, places, action, state)

    def _steps(
        self,
        folder: LeRobotFolder,
        episodes: Sequence[Episode],
        places: Sequence[int],
        action: list[int],
        state: list[int],
    ) -> Iterator[dict[str, Any]]:
        names = self.action_space.names
        terminate = names.index(_TERMINATE) if _TERMINATE in names else None
        cameras = list(self.cameras.values())
        stored = [key for key in cameras if folder.columns[key].kind == "image"]
        columns = list(dict.fromkeys([*self.action_columns, *self._states]))
        read = read_rows(folder, episodes, columns, stored)
        for number, (episode, rows) in zip(places, read, strict=True):
            videos = {
                key: read_frames(
                    episode.videos[key][0],
                    start=episode.videos[key][1],
                    fps=folder.fps,
                    count=episode.length,
                    where=f"{episode.name}, camera {key!r}",
                )
                for key in cameras
                if key not in stored
            }
            for index, row in enumerate(rows):
                numbers = _numbers(row, self.action_columns)[action]
                if terminate is not None:
                    goes_on = index < episode.length - 1
                    numbers = np.insert(numbers, terminate, np.float32(goes_on))
                where = f"{episode.name}, frame {index}"
                yield {
                    "images": [
                        self._encode(next(videos[key]))
                        if key in videos
                        else self._keep(row[key], f"{where}, camera {key!r}")
                        for key in cameras
                    ],
                    "text": row["text"],
                    "action": numbers,
                    "state": _numbers(row, self._states)[state],
                    "episode": number,
                    "step": index,
                    "episode_id": episode.name,
                }

    @property
    def _states(self) -> Sequence[str]:
        """The state columns that are read."""
        return self.state_columns if self.state_fields else ()

    def _size(self, found: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) that a picture of this one gets."""
        if self.image_size:
            return self.image_size
        scale = self.longest_side / max(found) if self.longest_side else 1.0
        if scale >= 1:
            return found
        return max(1, round(found[0] * scale)), max(1, round(found[1] * scale))

    def _encode(self, image: np.ndarray) -> bytes:
        return encode_image(resize(image, self._size(image.shape[:2])), self.image_format)

    def _keep(self, data: bytes, where: str) -> bytes:
        image = decode_image(data, where)
        return data if self._size(image.shape[:2]) == image.shape[:2] else self._encode(image)


def _numbers(row: Row, columns: Sequence[str]) -> np.ndarray:
    """Float32, the numbers of these columns, one behind the other."""
    return np.concatenate([np.zeros(0, np.float32), *(row[key] for key in columns)])


def _check_files(
    folder: LeRobotFolder, episodes: Sequence[Episode], cameras: Sequence[str]
) -> None:
    def files(episode: Episode) -> list[pathlib.Path]:
        return [episode.rows, *(episode.videos[k][0] for k in cameras if k in episode.videos)]

    paths = {path for episode in episodes for path in files(episode)}
    missing = {path for path in paths if not path.is_file()}
    if missing:
        whole = [e.index for e in episodes if missing.isdisjoint(files(e))]
        raise FileNotFoundError(
            f"{folder.directory}: {len(missing)} files are missing, the first is {min(missing)}; "
            f"{len(whole)} of {len(episodes)} episodes are whole: {whole[:20]}"
        )


def lerobot_source(steps: LeRobotSteps, splits: Mapping[str, str | Sequence[int]]) -> ShardedSource:
    """Steps of a LeRobot data set of version 2.0, 2.1 or 3.0, read where it is.

    Frames are decoded one after the other, so an episode may be longer than memory. Nothing is read
    before the data are asked for. A shard is a block of episodes, see `LeRobotSteps.blocks`.

    Args:
      steps: what becomes a step.
      splits: name -> episodes, as `LeRobotFolder.select` takes them: "0:80", ":90%", [3, 5, 8].
    """

    def dataset(
        split: str, shuffle_files: bool, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset:
        del shuffle_files
        blocks = None if shard_info is None else chosen(steps.blocks(splits[split]), shard_info)
        steps.read(splits[split], blocks)  # refuses before TensorFlow wraps what is raised
        return tf.data.Dataset.from_generator(
            lambda: steps.read(splits[split], blocks), output_signature=_SIGNATURE
        )

    def names(split: str) -> list[str]:
        steps.read(splits[split])  # looks for all files, not only those of one block
        return [
            f"{steps.folder}, episodes {block[0]} to {block[-1]} of the split"
            for block in steps.blocks(splits[split])
        ]

    return ShardedSource(dataset, names, splits)


def lerobot_task(
    name: str,
    steps: LeRobotSteps,
    splits: Mapping[str, str | Sequence[int]],
    *,
    embodiment: str,
    state_bounds: Mapping[str, tuple[float, float]] | None = None,
    prompt: str = ROBOT_PROMPT,
    preprocessors: Sequence[Callable[..., tf.data.Dataset]] = (),
    loss_weight: float = 1.0,
) -> seqio.Task:
    """Registers a LeRobot data set as a robot task; views, state and sizes are those of `steps`.

    Args:
      name: of the task.
      steps: what of the data set becomes a step.
      splits: as in `lerobot_source`.
      embodiment: the robot.
      state_bounds: as in `robot_task`.
      prompt: of the model.
      loss_weight: as in `robot_task`.
      preprocessors: SeqIO's, from these steps to others of the same fields.

    Raises:
      ValueError: as `robot_task`.
    """
    return robot_task(
        name,
        lerobot_source(steps, splits),
        embodiment=embodiment,
        action_space=steps.action_space,
        views=tuple(steps.cameras),
        read_from=steps.folder,
        state_fields=steps.state_fields,
        state_bounds=state_bounds,
        image_size=steps.image_size,
        prompt=prompt,
        preprocessors=preprocessors,
        loss_weight=loss_weight,
    )
