"""Recordings of robot episodes in RLDS: folders that `tfds.builder_from_directory` reads anywhere.

`docs/recording.md` describes every field. TensorFlow is not needed here: tensorflow-datasets makes
the examples and the description without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.proto import tf_example_pb2

from rt2_jax.actions.identity import differences
from rt2_jax.actions.policy import Observation
from rt2_jax.data.image import encode_image
from rt2_jax.data.locks import only_writer
from rt2_jax.data.recording import (
    VERSION,
    Recording,
    RecordingInfo,
    read_metadata,
    read_recording,
    write_metadata,
)
from rt2_jax.data.tfrecord import read_records, write_records


@dataclasses.dataclass(frozen=True)
class RecordedStep:
    """One step: what was seen, the action to imitate, float32 [D], and what came of it.

    `executed_action`, float32 [D], is set where the recording is a disturbed one; `points`, the
    names of `RecordingInfo.points` at this step and their places float32 [P, 3], where it has some.
    """

    observation: Observation
    action: np.ndarray
    reward: float
    executed_action: np.ndarray | None = None
    points: tuple[Sequence[str], np.ndarray] | None = None


def image_key(camera: str) -> str:
    """The key of a camera's pictures in `observation`: the front camera's is plainly `image`."""
    return "image" if camera == "front" else f"{camera}_image"


def episode_features(info: RecordingInfo) -> tfds.features.FeaturesDict:
    """The features of one example, which is one episode."""
    feature = tfds.features
    image = {"shape": (info.height, info.width, 3), "encoding_format": info.image_format}
    observation = {
        image_key(camera): feature.Image(**image, doc=f"camera {camera!r} before the action")
        for camera in info.cameras
    }
    observation["state"] = feature.Tensor(
        shape=(len(info.state_fields),), dtype=np.float32, doc=", ".join(info.state_fields)
    )
    action = {"shape": (info.action_space.dimension,), "dtype": np.float32}
    steps = {
        "observation": observation,
        "action": feature.Tensor(**action, doc=info.action_space.describe()),
        "language_instruction": feature.Text(doc="what to do, the same at every step"),
        "is_first": feature.Scalar(dtype=np.bool_),
        "is_last": feature.Scalar(dtype=np.bool_),
        "is_terminal": feature.Scalar(dtype=np.bool_, doc="last, and not for lack of time"),
        "reward": feature.Scalar(dtype=np.float32, doc="1 at the last step of a success"),
        "discount": feature.Scalar(dtype=np.float32, doc="0 at a terminal step, else 1"),
    }
    if info.points:
        count, names = len(info.points), ", ".join(info.points)
        steps["point_names"] = feature.Tensor(
            shape=(count,), dtype=np.str_, doc=f"names of {names}; empty for what is not there"
        )
        steps["points"] = feature.Tensor(
            shape=(count, 3), dtype=np.float32, doc=f"places of {names}: m, base frame"
        )
    if info.disturbed:
        steps["executed_action"] = feature.Tensor(**action, doc="`action` with noise, as executed")
    return feature.FeaturesDict(
        {
            "steps": feature.Dataset(steps),
            "episode_metadata": {
                "episode_id": feature.Text(),
                "skill": feature.Text(),
                "seed": feature.Scalar(dtype=np.int64),
                "success": feature.Scalar(dtype=np.bool_),
                "steps": feature.Scalar(dtype=np.int32, doc="how many there are"),
                "scene": feature.Text(doc="JSON: what stood where, and what was asked"),
            },
        }
    )


class ExampleEncoder:
    """Makes examples of these features; equal values give equal bytes."""

    def __init__(self, features: tfds.features.FeaturesDict) -> None:
        self._features = features
        self._serializer = ExampleSerializer(features.get_serialized_info())

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """The example; a picture that is bytes is taken as it is."""
        example = self._serializer.get_tf_example(self._features.encode_example(values))
        # Not the features' own `serialize_example`: it leaves the order of the keys to chance.
        serialized: bytes = example.SerializeToString(deterministic=True)
        return serialized


class EpisodeEncoder:
    """Makes examples of a recording; equal episodes give equal bytes."""

    def __init__(self, info: RecordingInfo) -> None:
        self._info = info
        self._encoder = ExampleEncoder(episode_features(info))

    def encode(
        self, steps: Sequence[RecordedStep], *, terminated: bool, metadata: Mapping[str, Any]
    ) -> bytes:
        """The example of one episode.

        Args:
          steps: one or more, in order; the last one's action has been executed too.
          terminated: whether the last step is terminal (and not merely the last for lack of time).
          metadata: `episode_metadata`, without `steps`.

        Raises:
          ValueError: a picture, state or action has the wrong shape.
        """
        last = len(steps) - 1
        encoded = []
        for index, step in enumerate(steps):
            terminal = terminated and index == last
            observation = {
                image_key(camera): self._encode_image(step.observation, camera)
                for camera in self._info.cameras
            }
            features = {
                "observation": {**observation, "state": step.observation.state},
                "action": step.action,
                "language_instruction": step.observation.instruction,
                "is_first": index == 0,
                "is_last": index == last,
                "is_terminal": terminal,
                "reward": step.reward,
                "discount": 1.0 - terminal,
            }
            if self._info.points:
                assert step.points is not None
                names, features["points"] = step.points
                features["point_names"] = np.array(names, object)
            if self._info.disturbed:
                features["executed_action"] = step.executed_action
            encoded.append(features)
        episode = {"steps": encoded, "episode_metadata": {**metadata, "steps": len(steps)}}
        return self._encoder.encode(episode)

    def _encode_image(self, observation: Observation, camera: str) -> bytes:
        image = observation.images[camera]
        expected = (self._info.height, self._info.width, 3)
        if image.shape != expected:  # tensorflow-datasets takes encoded pictures unseen
            raise ValueError(
                f"camera {camera!r}: found a picture of shape {list(image.shape)}, expected "
                f"{list(expected)}"
            )
        return encode_image(image, self._info.image_format)


class RecordingWriter:
    """Writes a recording's files into `root/<name>/<version>`, whole shard by whole shard.

    While shards are missing the folder's name ends in `.incomplete`, so that no reader takes it for
    a data set; a writer for the same recording goes on where the last one stopped. There is one
    writer at a time: others are refused until it finishes, is closed or dies.

    Raises:
      ValueError: the folder holds something else, or a recording that differs; nothing is changed.
      OSError: the folder cannot be made, read or locked, or another writer is at work in it.
    """

    def __init__(self, root: pathlib.Path, info: RecordingInfo) -> None:
        self.info = info
        self.directory = root / info.name / VERSION
        self._incomplete = self.directory.with_name(f"{VERSION}.incomplete")
        self.complete = self.directory.exists()
        self._lock = contextlib.ExitStack()
        try:
            with contextlib.ExitStack() as stack:
                if not self.complete:
                    stack.enter_context(_only_writer(self.directory))
                    self.complete = self.directory.exists()  # another one has just finished it
                if self.complete:
                    self._check_same(read_recording(self.directory).info, self.directory)
                else:
                    self._open_unfinished()
                    self._lock = stack.pop_all()
        except OSError as error:
            raise OSError(f"cannot record into {root}: {error.strerror or error}") from error

    def _open_unfinished(self) -> None:
        self._incomplete.mkdir(exist_ok=True)
        if any(self._incomplete.iterdir()):
            self._check_same(read_metadata(self._incomplete)[0], self._incomplete)
        else:
            write_metadata(self._incomplete, self.info, successes=None)

    def _check_same(self, found: RecordingInfo, directory: pathlib.Path) -> None:
        lines = differences(found.to_json(), json.loads(json.dumps(self.info.to_json())))
        if lines:
            raise ValueError(
                f"{directory} holds another recording than the one asked for: {'; '.join(lines)}. "
                "Nothing was changed; record into another folder, or delete that one"
            )

    def missing_shards(self) -> list[int]:
        """The shards that are yet to be written."""
        if self.complete:
            return []
        shards = range(len(self.info.shards))
        return [s for s in shards if not (self._incomplete / self.info.shard_file(s)).exists()]

    def write_shard(self, shard: int, episodes: Iterable[bytes]) -> None:
        """Writes the examples of all episodes of a shard."""
        write_records(self._incomplete / self.info.shard_file(shard), episodes)

    def finish(self) -> Recording:
        """Checks all shards, describes the data set and gives the folder its name.

        Raises:
          ValueError: a shard is damaged or holds another number of episodes.
        """
        if self.complete:
            return read_recording(self.directory)
        size = successes = 0
        for shard, expected in enumerate(self.info.shards):
            path = self._incomplete / self.info.shard_file(shard)
            records = list(read_records(path))
            if len(records) != len(expected):
                raise ValueError(
                    f"{path}: found {len(records)} episodes, expected {len(expected)}; delete the "
                    "file and run again"
                )
            size += sum(map(len, records))
            successes += sum(map(_succeeded, records))
        tfds.folder_dataset.write_metadata(
            data_dir=self._incomplete,
            features=episode_features(self.info),
            split_infos=[
                tfds.core.SplitInfo(
                    name="train",
                    shard_lengths=[len(shard) for shard in self.info.shards],
                    num_bytes=size,
                    filename_template=None,
                )
            ],
            version=VERSION,
            check_data=False,  # the shards have just been read
            description=_describe(self.info, successes),
        )
        write_metadata(self._incomplete, self.info, successes)
        self._incomplete.rename(self.directory)
        self.complete = True
        self.close()
        return Recording(self.directory, self.info, successes)

    def close(self) -> None:
        """Lets other writers in."""
        self._lock.close()


@contextlib.contextmanager
def _only_writer(directory: pathlib.Path) -> Iterator[None]:
    """Keeps other writers of the recording out."""
    lock = directory.with_name(f"{directory.name}.lock")
    refusal = (
        f"another process is recording {directory}; wait until it has finished, or record into "
        "another folder"
    )
    with only_writer(lock, refusal):
        yield
        if directory.exists():
            lock.unlink(missing_ok=True)


def _succeeded(record: bytes) -> bool:
    example = tf_example_pb2.Example.FromString(record)
    return bool(example.features.feature["episode_metadata/success"].int64_list.value[0])


def _describe(info: RecordingInfo, successes: int) -> str:
    share = math.floor(1000 * successes / info.episodes) / 10
    return (
        f"{info.episodes} episodes of {info.embodiment}, of which {successes} ({share:g} %) "
        f"succeeded. What the numbers mean stands in metadata.json.\n{info.action_space.describe()}"
    )
