"""Trains the project's own vocabulary: `python -m rt2_jax.data.vocabulary.train --out FILE`.

SentencePiece's unigram model (Kudo 2018) with byte fallback, on the sentences of `corpus.py`. Every
step is deterministic: training again with the same version of sentencepiece gives the same file.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

import sentencepiece

from rt2_jax.data.vocabulary.corpus import CHARACTERS, lexicon_words, sentences
from rt2_jax.data.vocabulary.tokenizer import Tokenizer

VOCABULARY_SIZE = 8000
SENTENCES = 250_000
LOCATIONS = 1024  # PaliGemma's number and names (Beyer et al. 2024, section 3.2.1)
SPACE = "\u2581"
# RT-2's bins, and the negative half of its Language-Table actions (RT-2, sections 3.2 and 4.1).
INTEGERS = range(-10, 256)
_SINGLE_PIECE_TOPICS = ("colour", "shape", "corner", "side", "coco")


def special_pieces() -> list[str]:
    """The user-defined pieces, never split: integers after a space, then locations."""
    return [f"{SPACE}{i}" for i in INTEGERS] + [f"<loc{i:04d}>" for i in range(LOCATIONS)]


def single_piece_words() -> list[str]:
    """The words of a table-top world and of COCO's objects: each must be one piece."""
    names = [w for topic in _SINGLE_PIECE_TOPICS for w in lexicon_words(topic)]
    numbers = "zero one two three four five six seven eight nine ten"
    return [*" ".join(names).split(), *numbers.split(), *ascii_uppercase]


def train_vocabulary() -> bytes:
    """Trains and returns the serialised model.

    Raises:
      ValueError: a word of `single_piece_words` did not become one piece.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences(SENTENCES),
        model_writer=model,
        model_type="unigram",
        vocab_size=VOCABULARY_SIZE,
        byte_fallback=True,
        user_defined_symbols=special_pieces(),
        required_chars=CHARACTERS,
        # Text comes back exactly as it went in: nothing is normalised, no space is dropped.
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    tokenizer = Tokenizer(model.getvalue())
    split = [w for w in single_piece_words() if len(tokenizer.encode(w)) != 1]
    if split:
        raise ValueError(
            f"these words must be one piece each, use them more in the corpus: {split}"
        )
    return model.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains and writes the vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the model file to write")
    out: Path = parser.parse_args(arguments).out
    out.write_bytes(train_vocabulary())
    print(f"{out}: {VOCABULARY_SIZE} pieces")


if __name__ == "__main__":
    main()
