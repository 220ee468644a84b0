"""Data sets that TFDS has prepared, read in parts: a file's part of a split at a time."""

from __future__ import annotations

import os
from typing import Any

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from rt2_jax.data.sharded_source import chosen


def tfds_parts(builder: tfds.core.DatasetBuilder, split: str) -> list[Any]:
    """TFDS's file instructions of a split such as `train[:20]`: each has a part of a file."""
    return list(builder.info.splits[split].file_instructions)


def tfds_shards(builder: tfds.core.DatasetBuilder, split: str) -> list[str]:
    """Names of these parts: `toto-train.tfrecord-00002-of-00064[0:16]`.

    Raises:
      FileNotFoundError: a file is missing.
    """
    parts = tfds_parts(builder, split)
    missing = [part.filename for part in parts if not os.path.exists(part.filename)]
    if missing:
        raise FileNotFoundError(
            f"split {split!r}: {len(missing)} of {len(parts)} files are missing, the first is "
            f"{missing[0]}; copy the data set again"
        )
    return [f"{part.basename()}[{part.skip}:{part.skip + part.take}]" for part in parts]


def read_tfds_parts(
    builder: tfds.core.DatasetBuilder,
    split: str,
    shard_info: seqio.ShardInfo | None,
    *,
    shuffle_files: bool,
    decoders: Any,
    add_tfds_id: bool = False,
) -> tf.data.Dataset:
    """What `tfds.builder.as_dataset` gives, file by file; of the chosen parts where some are.

    It raises at its end where files do not hold as many examples as the data set says.
    """
    context = None
    if shard_info is not None:
        context = tf.distribute.InputContext(
            num_input_pipelines=shard_info.num_shards, input_pipeline_id=shard_info.index
        )
    dataset = builder.as_dataset(
        split=split,
        shuffle_files=shuffle_files,
        decoders=decoders,
        # Files one after the other, so that examples have one order.
        read_config=tfds.ReadConfig(
            interleave_cycle_length=1, input_context=context, add_tfds_id=add_tfds_id
        ),
    )
    # TFDS itself does this for a whole split only.
    count = sum(part.take for part in chosen(tfds_parts(builder, split), shard_info))
    return dataset.apply(tf.data.experimental.assert_cardinality(count))
