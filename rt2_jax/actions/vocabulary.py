"""Which token id stands for which integer: a table of distinct ids, made on one of two routes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from rt2_jax.actions.identity import check_keys, content_hash

ROUTES = ("integer_pieces", "rare_pieces")


class Tokenizer(Protocol):
    """What this module needs of a tokenizer."""

    @property
    def hash(self) -> str:
        """Identifies the model file."""

    @property
    def vocab_size(self) -> int:
        """The number of ids."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""

    def id_to_piece(self, id: int) -> str:
        """The piece of an id."""

    def score(self, id: int) -> float:
        """The piece's unigram score: the lower, the rarer."""

    def is_normal(self, id: int) -> bool:
        """False for control, unknown, byte, unused and user-defined pieces."""


@dataclass(frozen=True)
class ActionVocabulary:
    """Integer -> token id, for the integers that an action codec writes.

    Integers are not levels: a codec may write level 0 as -10 or 1. `ActionTokens` goes from levels
    to ids.

    Attributes:
      ids: distinct token ids; they need not be contiguous, so this is a table, never an offset.
      integers: what the ids stand for, in the same order; a range with step 1.
      route: one of `ROUTES`.
      tokenizer_hash: of the tokenizer that the ids belong to.

    Raises:
      ValueError: an id twice or negative, another number of integers, or an unknown route.
    """

    ids: tuple[int, ...]
    integers: range
    route: str
    tokenizer_hash: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(int(i) for i in self.ids))
        twice = sorted({i for i in self._integer_of if self.ids.count(i) > 1})
        if twice or not self.ids or min(self.ids) < 0:
            raise ValueError(
                f"an action vocabulary needs distinct token ids >= 0, found {len(self.ids)} ids "
                f"with {twice} more than once"
            )
        if len(self.integers) != len(self.ids) or self.integers.step != 1:
            raise ValueError(
                f"an action vocabulary needs consecutive integers, one for each of its "
                f"{len(self.ids)} ids, found {self.integers}"
            )
        if self.route not in ROUTES:
            raise ValueError(f"action vocabulary route {self.route!r} is not one of {list(ROUTES)}")

    @cached_property
    def _integer_of(self) -> dict[int, int]:
        return dict(zip(self.ids, self.integers))

    @classmethod
    def from_integer_pieces(
        cls, tokenizer: Tokenizer, integers: range = range(256)
    ) -> ActionVocabulary:
        """PaLI-X's route: an integer's token is its one piece (RT-2, section 3.2).

        Every integer must be one id by itself, and stay so next to every other integer in texts
        such as `1 128 91`.

        Args:
          tokenizer: the model's.
          integers: see `BoundCodec.integers`.

        Raises:
          ValueError: some integers are not; the message lists them all.
        """
        tokens = {i: tokenizer.encode(str(i)) for i in integers}
        split = [i for i, ids in tokens.items() if len(ids) != 1 or tokenizer.decode(ids) != str(i)]
        if split:
            raise ValueError(
                f"{len(split)} of the integers {_ranges(integers)} are not single pieces of this "
                f"tokenizer ({tokenizer.vocab_size} pieces): {_ranges(split)}. Use "
                f"ActionVocabulary.from_rare_pieces, or a tokenizer that has them"
            )
        for i in integers:
            # All neighbours (i, j) and (j, i) with j >= i stand in this row.
            row = [x for j in integers if j >= i for x in (i, j)]
            text = " ".join(map(str, row))
            if tokenizer.encode(text) != [tokens[x][0] for x in row]:
                raise ValueError(
                    f"the integers {_ranges(integers)} are single pieces of this tokenizer, but "
                    f"not in the text {text[:40]!r}...: use ActionVocabulary.from_rare_pieces"
                )
        table = tuple(ids[0] for ids in tokens.values())
        return cls(table, integers, "integer_pieces", tokenizer.hash)

    @classmethod
    def from_rare_pieces(
        cls,
        tokenizer: Tokenizer,
        integers: range = range(256),
        corpus: Iterable[str] | None = None,
    ) -> ActionVocabulary:
        """PaLM-E's route: the least-used pieces become action tokens (RT-2, section 3.2).

        The first integer is the piece that the corpus uses least, or without a corpus the one with
        the lowest score, and so on; ties in the order of scores and ids.
        Control, unknown, byte and user-defined pieces are never taken, nor single characters: these
        spell every word that has no piece, and their scores don't count uses.

        Args:
          tokenizer: the model's.
          integers: see `BoundCodec.integers`.
          corpus: texts whose pieces are counted.

        Raises:
          ValueError: there are fewer such pieces than integers, the corpus has no text, or without
            one all have one score (some models made from BPE vocabularies), so that nothing says
            which are rare.
        """
        count = len(integers)
        scores = {
            i: tokenizer.score(i)
            for i in range(tokenizer.vocab_size)
            if tokenizer.is_normal(i) and len(tokenizer.id_to_piece(i).lstrip("\u2581")) > 1
        }
        if len(scores) < count:
            raise ValueError(
                f"this tokenizer has {len(scores)} normal pieces of two or more characters, "
                f"{count} are needed: use a larger vocabulary"
            )
        counts = Counter(piece for text in corpus or () for piece in tokenizer.encode(text))
        if corpus is not None and not counts:
            raise ValueError("the corpus has no text, so nothing says which pieces are rare")
        if corpus is None and len(set(scores.values())) == 1:
            raise ValueError(
                f"all pieces of this tokenizer have the score {min(scores.values())}, so nothing "
                f"says which {count} are the least used: give a corpus, use another vocabulary, or "
                f"ActionVocabulary.from_integer_pieces"
            )
        rare = sorted(scores, key=lambda i: (counts[i], scores[i], i))[:count]
        return cls(tuple(rare), integers, "rare_pieces", tokenizer.hash)

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Refuses a tokenizer that the ids don't belong to."""
        if tokenizer.hash != self.tokenizer_hash:
            raise ValueError(
                f"this action vocabulary was made for the tokenizer with hash "
                f"{self.tokenizer_hash}, found {tokenizer.hash}: its token ids mean other pieces"
            )

    @cached_property
    def _array(self) -> np.ndarray:
        return np.array(self.ids, np.int32)

    def to_ids(self, integers: Any) -> np.ndarray:
        """Token ids, int32, of integers (not levels) of any shape.

        Raises:
          TypeError: no integers.
          ValueError: an integer has no token.
        """
        array = np.asarray(integers)
        if array.dtype.kind not in "iu":
            raise TypeError(f"an action vocabulary maps integers, found dtype {array.dtype}")
        first, last = self.integers[0], self.integers[-1]
        wrong = (array < first) | (array > last)
        if wrong.any():
            raise ValueError(
                f"integer {array[wrong][0]} has no token: this action vocabulary has {first} to "
                f"{last}"
            )
        return self._array[array.astype(np.int64) - first]

    def to_integers(
        self, ids: Sequence[int], id_to_piece: Callable[[int], str] | None = None
    ) -> np.ndarray:
        """Integers (not levels), int32 [n], of n token ids.

        Args:
          ids: token ids.
          id_to_piece: names the piece in the error.

        Raises:
          ValueError: a token is no action token; it is never turned into an action.
        """
        for position, token in enumerate(ids):
            if token not in self._integer_of:
                piece = f" ({id_to_piece(int(token))!r})" if id_to_piece else ""
                raise ValueError(
                    f"token {int(token)}{piece} at position {position} is no action token: "
                    f"expected one of the {len(self.ids)} ids of the action vocabulary"
                )
        return np.array([self._integer_of[token] for token in ids], np.int32)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; `from_json` gives an equal vocabulary back."""
        return {
            "route": self.route,
            "tokenizer_hash": self.tokenizer_hash,
            "first_integer": self.integers.start,
            "ids": list(self.ids),
        }

    @classmethod
    def from_json(cls, data: Any) -> ActionVocabulary:
        """Reads what `to_json` wrote; unknown and missing keys are refused by name."""
        keys = ("route", "tokenizer_hash", "first_integer", "ids")
        check_keys("action vocabulary", data, keys)
        first = data["first_integer"]
        integers = range(first, first + len(data["ids"]))
        return cls(data["ids"], integers, data["route"], data["tokenizer_hash"])

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON."""
        return content_hash(self.to_json())


def _ranges(integers: Sequence[int]) -> str:
    """`-2 to 1, 3-5, 7` for [-2, -1, 0, 1, 3, 4, 5, 7]."""
    runs: list[list[int]] = []
    for i in integers:
        if runs and runs[-1][-1] == i - 1:
            runs[-1] = [runs[-1][0], i]
        else:
            runs.append([i])
    return ", ".join((" to " if run[0] < 0 else "-").join(map(str, run)) for run in runs)
