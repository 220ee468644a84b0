"""SeqIO sources that can be read in parts: shards that one after the other are the whole split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import seqio
import tensorflow as tf

Item = TypeVar("Item")


class ShardReader(Protocol):
    """Makes the data set of a split, or of those of its shards that `chosen` gives."""

    def __call__(
        self, split: str, shuffle_files: bool, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset: ...


class ShardedSource(seqio.DataSource):
    """A source that follows SeqIO's contract for shards.

    Shard i of `list_shards(split)` alone is `get_dataset(split, shard_info=ShardInfo(i, n))`, where
    n is their number; without shuffling the whole split is all shards in their order. With fewer
    parts than shards, part i has the shards i, i + n, i + 2n and so on.

    Args:
      read: see `ShardReader`.
      shards: from a split to the names of its shards; raises what `read` would where the data are
        not on this disk.
      splits: names.
    """

    def __init__(
        self, read: ShardReader, shards: Callable[[str], Sequence[str]], splits: Iterable[str]
    ) -> None:
        super().__init__(splits=tuple(splits))
        self._read = read
        self._shards = shards

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """A part is made of whole shards."""
        return False

    def list_shards(self, split: str) -> list[str]:
        """Names of the shards in their order, for people: a file, or a range of episodes."""
        return list(self._shards(split))

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **unused: Any,
    ) -> tf.data.Dataset:
        """The data set of a split, or of a part of its shards.

        Raises:
          ValueError: more parts than shards.
        """
        del seed, unused
        return self._read(split, shuffle, shard_info)


def chosen(shards: Sequence[Item], shard_info: seqio.ShardInfo | None) -> Sequence[Item]:
    """Those of all shards that a part has.

    Raises:
      ValueError: more parts than shards.
    """
    if shard_info is None:
        return shards
    if shard_info.num_shards > len(shards):
        raise ValueError(
            f"found a request for part {shard_info.index} of {shard_info.num_shards}, but there "
            f"are {len(shards)} shards"
        )
    return shards[shard_info.index :: shard_info.num_shards]
