"""Text-only corpora as a SeqIO source: lines or paragraphs of text files, or JSON lines."""

from __future__ import annotations

import gzip
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import seqio
import tensorflow as tf

from rt2_jax.data.photo_source import WEB_SIGNATURE
from rt2_jax.data.registration import data_path

Unit = Literal["line", "paragraph"]


def text_source(
    folder: str,
    files: Mapping[str, str],
    *,
    unit: Unit = "paragraph",
    most_words: int = 100,
    least_words: int = 5,
) -> seqio.DataSource:
    """Pieces of text without a picture, in the files' order; a piece is in memory at a time.

    A piece is the target, its text is empty; `corrupt_spans` and `split_targets` make a task of it.
    Blanks are made single. `.jsonl` and `.json` files hold an object with `text` on each line (C4's
    layout); `.gz` behind a name is unpacked.

    Args:
      folder: relative to `data_path`.
      files: split -> glob of its files in the folder, read in the order of names.
      unit: what a piece of a text file is; paragraphs have an empty line between them. Each JSON
        line is one.
      most_words: longer pieces are cut into several of this many words.
      least_words: shorter ones are left out.
    """
    if unit not in ("line", "paragraph") or not 1 <= least_words <= most_words:
        raise ValueError(
            f"text_source: found unit {unit!r}, least_words {least_words} and most_words "
            f"{most_words}, expected 'line' or 'paragraph', and 1 <= least_words <= most_words"
        )

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        root = data_path(folder)
        found = sorted(path for path in root.glob(files[split]) if path.is_file())
        if not found:
            raise FileNotFoundError(
                f"no file {root / files[split]}; set RT2_DATA_DIR to the folder above the data"
            )

        def steps() -> Iterator[dict[str, Any]]:
            pieces = (
                (f"{path.name}:{line}", piece)
                for path in found
                for line, text in _pieces(path, unit)
                for piece in _cut(text.split(), most_words)
                if len(piece) >= least_words
            )
            for episode, (name, words) in enumerate(pieces):
                yield {
                    "images": [],
                    "text": "",
                    "target": " ".join(words),
                    "references": [],
                    "episode": episode,
                    "episode_id": name,
                }

        return tf.data.Dataset.from_generator(steps, output_signature=WEB_SIGNATURE)

    return seqio.FunctionDataSource(dataset, splits=tuple(files))


def _pieces(path: pathlib.Path, unit: Unit) -> Iterator[tuple[int, str]]:
    """The texts of a file with the number of their first line, from 1."""
    packed = path.suffix == ".gz"
    suffix = pathlib.Path(path.stem).suffix if packed else path.suffix
    try:
        with (gzip.open if packed else open)(path, "rt", encoding="utf-8-sig") as file:
            lines = enumerate(file, 1)
            if suffix in (".jsonl", ".json"):
                yield from ((number, _json_text(path, number, line)) for number, line in lines)
            elif unit == "line":
                yield from lines
            else:
                for blank, group in itertools.groupby(lines, lambda line: not line[1].strip()):
                    if not blank:
                        number, first = next(group)
                        yield number, "".join([first, *(line for _, line in group)])
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: damaged, no text in UTF-8 ({error})") from error


def _json_text(path: pathlib.Path, number: int, line: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}, line {number}: no JSON object with 'text' ({error})") from error
    return str(text)


def _cut(words: list[str], most: int) -> Iterator[list[str]]:
    return (words[first : first + most] for first in range(0, len(words), most))
