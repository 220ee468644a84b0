"""Writes the folder of an RLDS data set, whole or not at all."""

from __future__ import annotations

import itertools
import json
import pathlib
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds

from rt2_jax.data.locks import only_writer
from rt2_jax.data.rlds import ExampleEncoder
from rt2_jax.data.tfrecord import write_records

VERSION = "1.0.0"


def rlds_folder(root: str | pathlib.Path, name: str, where: str) -> pathlib.Path:
    """Where a data set of this name is, `root/<name>/1.0.0`.

    Raises:
      ValueError: tensorflow-datasets takes no such name; the message begins with `where`.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"{where}: tensorflow-datasets takes names in lower case with underscores")
    return pathlib.Path(root) / name / VERSION


def write_rlds_folder(
    final: pathlib.Path,
    features: tfds.features.FeaturesDict,
    splits: Mapping[str, Iterator[Mapping[str, Any]]],
    *,
    metadata: Mapping[str, Any],
    description: str,
    shard_episodes: int,
) -> None:
    """Writes a data set that `tfds.builder_from_directory` reads.

    In memory is one episode, encoded. While episodes are missing the folder's name ends in
    `.incomplete`; a run that was interrupted begins again.

    Args:
      final: the folder, as `rlds_folder` names it.
      features: of an episode.
      splits: name -> values of each episode; they are asked for once there is a folder.
      metadata: for `metadata.json`.
      description: for people.
      shard_episodes: to a file.

    Raises:
      FileExistsError: the folder is there already.
      OSError: another process is writing it, or it cannot be written.
    """
    lock = final.with_name(f"{VERSION}.lock")
    with only_writer(lock, f"another process is writing {final}; wait until it has finished"):
        try:
            if final.exists():
                raise FileExistsError(f"{final} is there already; delete it to write it again")
            partial = final.with_name(f"{VERSION}.incomplete")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            infos = [
                _write_split(partial, final.parent.name, split, features, episodes, shard_episodes)
                for split, episodes in splits.items()
            ]
            tfds.folder_dataset.write_metadata(
                data_dir=partial,
                features=features,
                split_infos=infos,
                version=VERSION,
                check_data=False,  # the shards have just been written
                description=description,
            )
            text = json.dumps(metadata, indent=1, allow_nan=False)
            (partial / "metadata.json").write_text(text + "\n", encoding="utf-8")
            partial.rename(final)
        finally:
            lock.unlink()


def _write_split(
    folder: pathlib.Path,
    name: str,
    split: str,
    features: tfds.features.FeaturesDict,
    episodes: Iterator[Mapping[str, Any]],
    shard_episodes: int,
) -> tfds.core.SplitInfo:
    encoder = ExampleEncoder(features)
    files: list[pathlib.Path] = []
    lengths, size = [], 0
    while (first := next(episodes, None)) is not None:
        block = itertools.chain([first], itertools.islice(episodes, shard_episodes - 1))
        examples = _Counted(map(encoder.encode, block))
        files.append(folder / f"{split}-{len(files)}")
        write_records(files[-1], examples)
        lengths.append(examples.count)
        size += examples.size
    for number, file in enumerate(files):
        shard = f"{number:05d}-of-{len(files):05d}"
        file.rename(folder / f"{name}-{split}.tfrecord-{shard}")
    return tfds.core.SplitInfo(
        name=split, shard_lengths=lengths, num_bytes=size, filename_template=None
    )


class _Counted:
    """Records, of which it is known afterwards how many there were and how large."""

    def __init__(self, records: Iterable[bytes]) -> None:
        self._records = records
        self.count = self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for record in self._records:
            self.count += 1
            self.size += len(record)
            yield record
