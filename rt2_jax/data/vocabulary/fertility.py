"""Tokens per word of vocabularies on real text.

`python -m rt2_jax.data.vocabulary.fertility FILE --key caption --vocabulary rt2_8k OTHER.model`
Fertility (Rust et al. 2021, section 3.1) is the number of tokens over the number of words, here of
whitespace-separated words with their punctuation.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rt2_jax.data.vocabulary.tokenizer import Tokenizer, load_vocabulary


def fertility(tokenizer: Tokenizer, texts: Iterable[str]) -> float:
    """Tokens per word, outer blanks of each text left out. Raises ValueError for no word at all."""
    stripped = [text.strip() for text in texts]
    words = sum(len(text.split()) for text in stripped)
    if not words:
        raise ValueError("fertility needs at least one word of text, found none")
    return sum(len(tokenizer.encode(text)) for text in stripped) / words


def strings_under(data: Any, key: str) -> Iterator[str]:
    """All strings that stand under a key anywhere in JSON data, alone or in a list."""
    if isinstance(data, dict):
        for name, value in data.items():
            if name == key:
                values = value if isinstance(value, list) else [value]
                yield from (v for v in values if isinstance(v, str))
            yield from strings_under(value, key)
    elif isinstance(data, list):
        for value in data:
            yield from strings_under(value, key)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one line per vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="a JSON file, or plain text with one text a line")
    parser.add_argument("--key", help="of a JSON file: the key of the texts, such as caption")
    parser.add_argument("--vocabulary", nargs="+", default=["rt2_8k"], help="names or paths")
    options = parser.parse_args(arguments)
    text = options.file.read_text(encoding="utf-8")
    texts = list(strings_under(json.loads(text), options.key)) if options.key else text.splitlines()
    for name in options.vocabulary:
        tokenizer = load_vocabulary(name)
        figure = fertility(tokenizer, texts)
        print(f"{figure:.3f} tokens per word  {tokenizer.vocab_size:>7} pieces  {Path(name).name}")


if __name__ == "__main__":
    main()
