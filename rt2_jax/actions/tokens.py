"""How levels become token ids, and strictly back: a bound codec with an action vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rt2_jax.actions.codec import BoundCodec
from rt2_jax.actions.vocabulary import ActionVocabulary


@dataclass(frozen=True)
class ActionTokens:
    """The token ids of one space's actions: one for each integer of `BoundCodec.to_text`.

    With a vocabulary made from integer pieces they are the tokens of that text.

    Raises:
      ValueError: the vocabulary lacks an integer that the codec writes.
    """

    codec: BoundCodec
    vocabulary: ActionVocabulary

    def __post_init__(self) -> None:
        needed, found = self.codec.integers, self.vocabulary.integers
        if needed[0] < found[0] or needed[-1] > found[-1]:
            raise ValueError(
                f"codec {self.codec.codec.name!r} writes actions of {self.codec.space.name!r} as "
                f"integers {needed[0]} to {needed[-1]}, the action vocabulary has {found[0]} to "
                f"{found[-1]}: make it for range({needed.start}, {needed.stop}), e.g. "
                f"ActionVocabulary.from_{self.vocabulary.route}(tokenizer, codec.integers)"
            )

    def to_ids(self, levels: Any) -> np.ndarray:
        """Token ids, int32 [..., K * D], of levels int [..., K, D].

        Raises:
          TypeError, ValueError: as `BoundCodec.to_integers`.
        """
        ids = self.vocabulary.to_ids(self.codec.to_integers(levels))
        return ids.reshape(*ids.shape[:-2], -1)

    def from_ids(
        self, ids: Sequence[int], id_to_piece: Callable[[int], str] | None = None
    ) -> np.ndarray:
        """Levels, int32 [K, D], of one chunk's K * D token ids.

        Args:
          ids: token ids.
          id_to_piece: names the piece in the error.

        Raises:
          ValueError: a token that is no action token, another count, or an integer that a field
            does not have. The message names the position; nothing is clipped into an action.
        """
        integers = self.vocabulary.to_integers(ids, id_to_piece)
        return self.codec.from_integers(integers, "action tokens")

    def token_mask(self, vocab_size: int) -> np.ndarray:
        """Bool [K * D, vocab_size]: which ids each position may hold.

        Args:
          vocab_size: the width of the model's logits.

        Raises:
          ValueError: there is an id beyond `vocab_size`.
        """
        greatest = max(self.vocabulary.ids)
        if greatest >= vocab_size:
            raise ValueError(
                f"no mask over {vocab_size} logits: the action vocabulary has ids up to {greatest}"
            )
        mask = np.zeros((len(self.codec.integers_per_position), vocab_size), bool)
        for row, integers in zip(mask, self.codec.integers_per_position):
            row[self.vocabulary.to_ids(integers)] = True
        return mask
