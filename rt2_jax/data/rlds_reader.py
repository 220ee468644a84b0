"""RLDS directories as SeqIO sources, and the preprocessor from their episodes to steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.data.recording import read_recording
from rt2_jax.data.registration import data_path
from rt2_jax.data.sharded_source import ShardedSource, chosen
from rt2_jax.data.task_info import RobotInfo
from rt2_jax.data.tfds_parts import read_tfds, tfds_shards

Tensors = Mapping[str, Any]
EPISODE_ID = "tfds_id"
"""Of every episode: its split, file and number in the file, e.g. `toto-train.tfrecord-00002__7`."""
EPISODE_NUMBER = "number_in_split"
"""Of every episode: int64 from 0, the same whichever shards of the split are read."""


class RldsSource(ShardedSource):
    """A source that says which folder it reads, for tools that look at the raw data.

    Attributes:
      directory: relative to `data_path`.
      slices: split of the task -> split of the data set, e.g. `train[:20]`.
    """

    def __init__(
        self,
        episodes: Callable[..., tf.data.Dataset],
        shards: Callable[[str], Sequence[str]],
        directory: str,
        slices: Mapping[str, str],
    ) -> None:
        super().__init__(episodes, shards, slices)
        self.directory = directory
        self.slices = dict(slices)


def rlds_source(
    directory: str,
    splits: Mapping[str, str],
    *,
    recorded: RobotInfo | None = None,
    fields: Sequence[str] | None = None,
) -> RldsSource:
    """Episodes of a folder that `tfds.builder_from_directory` reads, in their order on disk.

    Pictures stay encoded. Nothing is read before the data are asked for. A shard is some
    files of the split, see `tfds_shards`.

    Args:
      directory: the one with `features.json`; relative to `data_path`.
      splits: name -> split of the data set, e.g. `{"train": "train[:20]"}`.
      recorded: the robot that a recording of this project must be of; None for other data sets.
      fields: paths below a step of all that is read; None for everything, as where one is missing.
    """

    def open_builder() -> tfds.core.DatasetBuilder:
        path = data_path(directory)
        if not (path / "features.json").is_file():
            raise FileNotFoundError(
                f"no RLDS data set at {path}: expected a folder with features.json; set "
                "RT2_DATA_DIR to the folder above"
            )
        if recorded is not None:
            info = read_recording(path).info
            recorded.action_space.check_same(info.action_space, str(path))
            if recorded.state_fields != info.state_fields:
                raise ValueError(
                    f"{path}: its state is {list(info.state_fields)}, expected "
                    f"{list(recorded.state_fields)}"
                )
        return tfds.builder_from_directory(path)

    def episodes(
        split: str, shuffle_files: bool, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset:
        builder = open_builder()
        steps = _chosen_fields(builder.info.features["steps"].feature, fields)
        images = {
            key: tfds.decode.SkipDecoding()
            for key, feature in steps["observation"].items()
            if isinstance(feature, tfds.features.Image)
        }
        dataset = read_tfds(
            builder,
            splits[split],
            shard_info,
            shuffle_files=shuffle_files,
            decoders=_DecodeSteps(steps, {"steps": {"observation": images}}),
            add_tfds_id=True,
        )
        return tf.data.Dataset.zip((dataset, _numbers(builder, splits[split], shard_info))).map(
            lambda episode, number: {**episode, EPISODE_NUMBER: number}
        )

    def shards(split: str) -> list[str]:
        return [shard.name for shard in tfds_shards(open_builder(), splits[split])]

    return RldsSource(episodes, shards, directory, splits)


def _numbers(
    builder: tfds.core.DatasetBuilder, split: str, shard_info: seqio.ShardInfo | None
) -> tf.data.Dataset:
    """The number in the split of each episode of the chosen shards."""
    shards = chosen(tfds_shards(builder, split), shard_info)
    bounds = [[shard.examples.start, shard.examples.stop] for shard in shards]
    return tf.data.Dataset.from_tensor_slices(tf.constant(bounds, tf.int64)).flat_map(
        lambda bound: tf.data.Dataset.range(bound[0], bound[1])
    )


def numbered_episodes(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Pairs of an episode's number in its split and the episode.

    In data that do not come from `rlds_source` episodes are counted as they come.
    """
    if EPISODE_NUMBER not in dataset.element_spec:
        return dataset.enumerate()
    return dataset.map(lambda episode: (episode[EPISODE_NUMBER], episode))


class _DecodeSteps(tfds.decode.PartialDecoding):
    """Decodes some features of the steps; tensorflow-datasets' own stops at a nested data set."""

    def __init__(self, steps: tfds.features.FeaturesDict, decoders: Mapping[str, Any]) -> None:
        super().__init__({}, decoders)
        self._steps = steps

    def extract_features(self, features: tfds.features.FeaturesDict) -> tfds.features.FeaturesDict:
        around = dict(features.items())
        return tfds.features.FeaturesDict({**around, "steps": tfds.features.Dataset(self._steps)})


def _chosen_fields(
    features: tfds.features.FeaturesDict, fields: Sequence[str] | None
) -> tfds.features.FeaturesDict:
    """The features of these fields; all of them where one is missing, so that it can be named."""
    if fields is None:
        return features
    part = _part(features, fields)
    return tfds.features.FeaturesDict(part) if set(fields) <= set(leaves(part)) else features


def _part(features: Any, fields: Sequence[str]) -> dict[str, Any]:
    part: dict[str, Any] = {}
    for key, feature in features.items():
        below = [field[len(key) + 1 :] for field in fields if field.startswith(f"{key}/")]
        if key in fields:
            part[key] = feature
        elif below and isinstance(feature, tfds.features.FeaturesDict):
            part[key] = _part(feature, below)
    return part


def leaves(fields: Any, path: str = "") -> dict[str, Any]:
    """Path -> leaf of nested fields; a field's own name may hold slashes, too."""
    if not isinstance(fields, Mapping):
        return {path: fields}
    found: dict[str, Any] = {}
    for key, below in fields.items():
        found |= leaves(below, f"{path}/{key}" if path else key)
    return found


def steps_of_episodes(
    to_step: Callable[[Tensors], Tensors],
    *,
    episode_id: Callable[[Tensors], tf.Tensor],
    keep: Callable[[Tensors], tf.Tensor] | None = None,
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """A preprocessor from RLDS episodes to the steps that `StepFormat` expects.

    Args:
      to_step: from an RLDS step to `images`, `text`, `action` and perhaps `state`, as tensors.
      episode_id: from `episode_metadata` to the episode's name.
      keep: from `episode_metadata` to whether the episode is used; None for all.
    """

    def preprocess(dataset: tf.data.Dataset) -> tf.data.Dataset:
        if keep is not None:
            dataset = dataset.filter(lambda episode: keep(episode["episode_metadata"]))

        def steps(number: tf.Tensor, episode: Tensors) -> tf.data.Dataset:
            name = episode_id(episode["episode_metadata"])
            return (
                episode["steps"]
                .enumerate()
                .map(
                    lambda index, step: {
                        **to_step(step),
                        "episode": number,
                        "step": index,
                        "episode_id": name,
                    }
                )
            )

        return numbered_episodes(dataset).flat_map(steps)

    return preprocess
