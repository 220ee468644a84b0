"""Data sets that TFDS has prepared, read in parts: some files of a split at a time."""

from __future__ import annotations

import functools
import operator
import os
from dataclasses import dataclass
from typing import Any

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.data.sharded_source import chosen

# To a shard at least, but for the last one: reading each alone costs a second of preparation.
_EXAMPLES = 128


@dataclass(frozen=True)
class TfdsShard:
    """Some files of a split, one after the other.

    Attributes:
      name: `toto-train.tfrecord-00002-of-00064[0:16]`, or the first and the last of several.
      examples: their places among those of the split, without a step.
    """

    name: str
    examples: range


def tfds_shards(builder: tfds.core.DatasetBuilder, split: str) -> list[TfdsShard]:
    """The shards of a split such as `train[:20]`: each has the split's part of a file or several.

    Raises:
      FileNotFoundError: a file is missing.
    """
    parts = builder.info.splits[split].file_instructions
    missing = [part.filename for part in parts if not os.path.exists(part.filename)]
    if missing:
        raise FileNotFoundError(
            f"split {split!r}: {len(missing)} of {len(parts)} files are missing, the first is "
            f"{missing[0]}; copy the data set again"
        )
    shards: list[TfdsShard] = []
    names: list[str] = []
    first = end = 0
    for number, part in enumerate(parts):
        names.append(f"{part.basename()}[{part.skip}:{part.skip + part.take}]")
        end += part.take
        if end - first >= _EXAMPLES or number == len(parts) - 1:
            name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            shards.append(TfdsShard(name, range(first, end)))
            first, names = end, []
    return shards


def read_tfds(
    builder: tfds.core.DatasetBuilder,
    split: str,
    shard_info: seqio.ShardInfo | None,
    *,
    shuffle_files: bool,
    decoders: Any,
    add_tfds_id: bool = False,
) -> tf.data.Dataset:
    """What `as_dataset` gives, file by file, of a split or of a part of its shards."""
    part: Any = split
    if shard_info is not None:
        shards = chosen(tfds_shards(builder, split), shard_info)
        part = _instruction(builder, split, [shard.examples for shard in shards])
    return builder.as_dataset(
        split=part,
        shuffle_files=shuffle_files,
        decoders=decoders,
        # Files one after the other, so that examples have one order.
        read_config=tfds.ReadConfig(interleave_cycle_length=1, add_tfds_id=add_tfds_id),
    )


def _instruction(builder: tfds.core.DatasetBuilder, split: str, chosen: list[range]) -> Any:
    """TFDS's instruction for these of the examples of a split, which may be a sum of slices."""
    instructions = []
    for examples in chosen:
        before = 0
        for whole in tfds.core.ReadInstruction.from_spec(split).to_absolute(builder.info.splits):
            start, stop = whole.from_ or 0, whole.to
            if stop is None:
                stop = builder.info.splits[whole.splitname].num_examples
            # Of this slice, places among the examples of all.
            first = max(examples.start, before)
            end = min(examples.stop, before + stop - start)
            if first < end:
                shift = start - before
                instructions.append(
                    tfds.core.ReadInstruction(
                        whole.splitname, first + shift, end + shift, unit="abs"
                    )
                )
            before += stop - start
    return functools.reduce(operator.add, instructions)
