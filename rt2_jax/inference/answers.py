"""What an engine gives back: actions and texts, each with how sure the model was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rt2_jax.actions.policy import check_policy_output
from rt2_jax.actions.tokens import ActionTokens
from rt2_jax.data.vocabulary.tokenizer import Tokenizer


@dataclass(frozen=True)
class Question:
    """A prompt as the model reads it, with a picture (uint8 [H, W, 3], or encoded) or none."""

    prompt: str
    picture: np.ndarray | bytes | None = None


@dataclass(frozen=True)
class WrittenText:
    """An answer in words.

    Attributes:
      text: the words.
      tokens: int32 [n], of which they are made; the end of the sequence is the last of them, where
        the model wrote it within the tokens that it had.
      token_scores: float32 [n], the log-probability of each.
    """

    text: str
    tokens: np.ndarray
    token_scores: np.ndarray

    @property
    def score(self) -> float:
        """The log-probability of the whole answer."""
        return float(self.token_scores.sum())

    @classmethod
    def of(cls, tokenizer: Tokenizer, tokens: np.ndarray, scores: np.ndarray) -> WrittenText:
        """Of a row int32 [length], padded with 0 after its end, and its scores."""
        ends = np.flatnonzero(tokens == tokenizer.eos_id)
        count = ends[0] + 1 if ends.size else len(tokens)
        return cls(text_of(tokenizer, tokens), tokens[:count], scores[:count])


@dataclass(frozen=True)
class DecodedActions:
    """n answers to each of B examples of a robot.

    Attributes:
      plans: B lists of n plans, "" where the model writes none.
      tokens: int32 [B, n, K * D], of the actions.
      token_scores: float32 [B, n, K * D]; log-probability of each, among those that its place
        allows.
      free_scores: the same among all tokens.
      scores: float32 [B, n]; log-probability of plan and action.
    """

    plans: list[list[str]]
    tokens: np.ndarray
    token_scores: np.ndarray
    free_scores: np.ndarray
    scores: np.ndarray


def text_of(tokenizer: Tokenizer, tokens: Iterable[int]) -> str:
    """What tokens say; a model may have more ids than the vocabulary has pieces."""
    return tokenizer.decode(
        int(i) for i in tokens if 0 < i < tokenizer.vocab_size and i != tokenizer.eos_id
    )


def action_result(
    codec: ActionTokens,
    tokenizer: Tokenizer,
    decoded: DecodedActions,
    row: int,
    sampled: bool,
    where: str,
) -> dict[str, Any]:
    """A policy's answer, checked; see `PolicyEngine.act`.

    Raises:
      KeyError, TypeError, ValueError: an answer is no action.
    """
    answers = []
    for tokens in decoded.tokens[row]:
        levels = codec.from_ids(tokens.tolist(), tokenizer.id_to_piece)
        answers.append({"actions": codec.codec.decode(levels), "levels": levels})
        check_policy_output(codec.codec.space, answers[-1], where)
    result: dict[str, Any] = {
        **answers[0],
        "tokens": decoded.tokens[row, 0],
        "token_scores": decoded.token_scores[row, 0],
        "confidence": float(np.exp(decoded.free_scores[row, 0].min())),
        "plan": decoded.plans[row][0],
        "score": float(decoded.scores[row, 0]),
    }
    return {**result, "samples": _samples(answers, decoded, row)} if sampled else result


def _samples(answers: list[dict[str, Any]], decoded: DecodedActions, row: int) -> Mapping[str, Any]:
    return {
        "actions": np.stack([each["actions"] for each in answers]),
        "tokens": decoded.tokens[row],
        "token_scores": decoded.token_scores[row],
        "scores": decoded.scores[row],
        "plans": decoded.plans[row],
    }
