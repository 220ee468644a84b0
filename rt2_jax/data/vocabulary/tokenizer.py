"""Text to token ids and back with a SentencePiece model, without TensorFlow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import sentencepiece

from rt2_jax.data.vocabulary.piece_types import PieceType, piece_types

BUILT_IN = ("rt2_8k",)


class Tokenizer:
    """A SentencePiece model: the ids are those that `seqio.SentencePieceVocabulary` gives.

    It can be pickled, and so be sent to data workers.

    Attributes:
      model: the bytes of the model file.
      hash: SHA-256 of the model file, in hexadecimal; it stands for the vocabulary everywhere.
    """

    def __init__(self, model: bytes, name: str = "model"):
        """Reads a serialised model; `name` is what errors call it.

        Raises:
          ValueError: this is no SentencePiece model.
        """
        advice = (
            f"{name}: found {len(model)} bytes that are no SentencePiece model, expected a file "
            "such as spiece.model or *.model that sentencepiece wrote. A tokenizer.json or a BPE "
            "vocabulary must be converted first; a Git LFS pointer must be fetched"
        )
        if not model:
            raise ValueError(advice)
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(advice) from error
        self._types = piece_types(model)
        self.model = model
        self._name = name
        self.hash = hashlib.sha256(model).hexdigest()

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[bytes, str]]:
        return Tokenizer, (self.model, self._name)

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Reads a SentencePiece model file.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: it is no SentencePiece model.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"no vocabulary at {path}: expected a SentencePiece model file, or one of the "
                f"built-in names {', '.join(BUILT_IN)}"
            )
        return cls(path.read_bytes(), str(path))

    @property
    def vocab_size(self) -> int:
        """The number of ids, special ones included."""
        return self._processor.vocab_size()

    @property
    def pad_id(self) -> int:
        """The id of padding, or -1 where the model has none."""
        return self._processor.pad_id()

    @property
    def eos_id(self) -> int:
        """The id of the end of a sequence, or -1 where the model has none."""
        return self._processor.eos_id()

    @property
    def bos_id(self) -> int:
        """The id of the beginning of a sequence, or -1 where the model has none."""
        return self._processor.bos_id()

    @property
    def unk_id(self) -> int:
        """The id of unknown text; a vocabulary with byte fallback never encodes to it."""
        return self._processor.unk_id()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without an end-of-sequence id. Markup such as `</s>` is plain text."""
        return self._processor.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; control ids such as padding give no text.

        Raises:
          ValueError: an id is not in the vocabulary.
        """
        return self._processor.decode([self._check(i) for i in ids])

    def id_to_piece(self, id: int) -> str:
        """The piece of an id; `▁` in it stands for a space. Raises ValueError as `decode` does."""
        return self._processor.id_to_piece(self._check(id))

    def piece_to_id(self, piece: str) -> int:
        """The id of a piece. Raises KeyError for a string that is no piece."""
        id = self._processor.piece_to_id(piece)
        if self._processor.id_to_piece(id) != piece:
            raise KeyError(f"{piece!r} is no piece of {self._name} ({self.vocab_size} pieces)")
        return id

    def score(self, id: int) -> float:
        """The piece's score, in a unigram model its log probability: the lower, the rarer."""
        return self._processor.get_score(self._check(id))

    def is_normal(self, id: int) -> bool:
        """False for control, unknown, byte, unused and user-defined pieces."""
        return self._types[self._check(id)] is PieceType.NORMAL

    def _check(self, id: int) -> int:
        if not 0 <= id < self.vocab_size:
            raise ValueError(
                f"token id {id} is not in {self._name}: its ids are 0 to {self.vocab_size - 1}"
            )
        return int(id)


def load_vocabulary(name_or_path: str | Path = "rt2_8k") -> Tokenizer:
    """A built-in vocabulary by its name, any other by the path of its SentencePiece model file.

    Raises:
      FileNotFoundError: neither a built-in name nor a file.
      ValueError: the file is no SentencePiece model.
    """
    if name_or_path in BUILT_IN:
        model = resources.files(__package__) / f"{name_or_path}.model"
        return Tokenizer(model.read_bytes(), str(name_or_path))
    return Tokenizer.from_file(name_or_path)
