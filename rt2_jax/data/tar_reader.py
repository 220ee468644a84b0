"""Image-text tar shards (webdataset's layout, img2dataset's files) as a SeqIO source."""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import seqio
import tensorflow as tf

from rt2_jax.data.image import decode_image, shrink
from rt2_jax.data.photo_source import WEB_SIGNATURE
from rt2_jax.data.registration import data_path
from rt2_jax.data.sharded_source import ShardedSource, chosen
from rt2_jax.data.tar_shards import TarSample, find_shards, read_shard

_LOG = logging.getLogger("rt2_jax.data")
_PICTURES = ("jpg", "jpeg", "png", "webp")


def tar_source(
    folder: str,
    shards: Mapping[str, str],
    *,
    text: str = "",
    target: str = "txt",
    keep: Callable[[Mapping[str, Any]], bool] | None = None,
    longest_side: int | None = None,
    skip_damaged: bool = False,
) -> ShardedSource:
    """The pictures of tar shards with their texts; one sample is in memory at a time.

    A shard of the source is one of these files.

    Texts are named by the file of the sample that holds them: `txt`, or `json:caption` for a key
    of its JSON.

    Args:
      folder: relative to `data_path`.
      shards: split -> pattern of its shards in the folder, such as `{00000..00331}.tar` or
        `*.tar`. Every name of a brace must be there.
      text: where an example's text is; "" for none.
      target: where an example's target is.
      keep: from a sample's JSON to whether it is used, e.g. by its similarity; None for all.
      longest_side: shrinks larger pictures to this many pixels.
      skip_damaged: leaves samples out that have no whole picture or no target, and logs each with
        its shard and key, and how many there were; otherwise the first one is an error. A damaged
        shard always is.
    """

    def find(split: str) -> list[pathlib.Path]:
        return find_shards(data_path(folder), shards[split])

    def dataset(
        split: str, shuffle_files: bool, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset:
        del shuffle_files
        files = chosen(find(split), shard_info)

        def steps() -> Iterator[dict[str, Any]]:
            number, damaged = 0, 0
            for file in files:
                for sample in read_shard(file):
                    try:
                        if keep is not None and not keep(_json(sample)):
                            continue
                        step = {
                            "images": [_picture(sample, longest_side, check=skip_damaged)],
                            "text": _text(sample, text) if text else "",
                            "target": _text(sample, target),
                            "references": [],
                            "episode": number,
                            "episode_id": sample.name,
                        }
                    except ValueError as error:
                        if not skip_damaged:
                            raise
                        damaged += 1
                        _LOG.warning("left out: %s", error)
                        continue
                    number += 1
                    yield step
            if damaged:
                _LOG.warning(
                    "%s, split %s%s: %d damaged samples left out, %d used",
                    folder,
                    split,
                    "" if shard_info is None else f", {', '.join(file.name for file in files)}",
                    damaged,
                    number,
                )

        return tf.data.Dataset.from_generator(steps, output_signature=WEB_SIGNATURE)

    def names(split: str) -> list[str]:
        root = data_path(folder)
        return [str(file.relative_to(root)) for file in find(split)]

    return ShardedSource(dataset, names, shards)


def _picture(sample: TarSample, longest_side: int | None, *, check: bool) -> bytes:
    where = f"{sample.shard}, key {sample.key!r}"
    for extension in _PICTURES:
        if extension in sample.files:
            picture = sample.files[extension]
            if longest_side is not None:
                return shrink(picture, longest_side, where)
            if check:
                decode_image(picture, where)
            return picture
    raise ValueError(
        f"{where}: no picture; expected one of {', '.join(_PICTURES)}, found "
        f"{', '.join(sorted(sample.files)) or 'nothing'}"
    )


def _text(sample: TarSample, place: str) -> str:
    extension, _, key = place.partition(":")
    value = _json(sample, extension).get(key) if key else _file(sample, extension).strip()
    if value is None or not str(value).strip():
        raise ValueError(f"{sample.shard}, key {sample.key!r}: {place} is empty or missing")
    return str(value).strip()


def _json(sample: TarSample, extension: str = "json") -> Mapping[str, Any]:
    content = _file(sample, extension)
    try:
        data = json.loads(content)
    except ValueError as error:
        raise ValueError(
            f"{sample.shard}, key {sample.key!r}: {extension}: no JSON ({error})"
        ) from error
    if not isinstance(data, dict):
        raise ValueError(
            f"{sample.shard}, key {sample.key!r}: {extension}: found a {type(data).__name__}, "
            "expected a JSON object"
        )
    return data


def _file(sample: TarSample, extension: str) -> str:
    where = f"{sample.shard}, key {sample.key!r}"
    if extension not in sample.files:
        found = ", ".join(sorted(sample.files))
        raise ValueError(f"{where}: no {extension} beside it; found {found}")
    try:
        return sample.files[extension].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: {extension}: no UTF-8 text ({error})") from error
