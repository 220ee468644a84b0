"""Questions in words, as the server's `POST /v1/generate` asks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from rt2_jax.inference.engine import PolicyEngine


class Asked(Protocol):
    """A question of the server, whose layer this one does not know."""

    @property
    def prompt(self) -> str:
        """As the model reads it."""

    @property
    def picture(self) -> np.ndarray | None:
        """uint8 [H, W, 3]."""

    @property
    def max_tokens(self) -> int | None:
        """Of an answer."""

    @property
    def temperature(self) -> float:
        """0 for the likeliest answer."""

    @property
    def num_samples(self) -> int:
        """How many answers."""


def answer_in_words(engine: PolicyEngine, questions: Sequence[Asked]) -> list[list[str]]:
    """The likeliest answer to each question, `num_samples` times.

    Raises:
      ValueError: a temperature, a prompt that is too long, or a model that writes actions only.
    """
    from rt2_jax.inference.engine import Question

    for question in questions:
        if question.temperature > 0:
            raise ValueError(
                f"temperature: found {question.temperature:g}, expected 0: text is decoded greedily"
            )
    texts = engine.answer([Question(each.prompt, each.picture) for each in questions])
    tokenizer = engine.description.tokenizer
    answers = []
    for text, each in zip(texts, questions, strict=True):
        if each.max_tokens is not None:
            text = tokenizer.decode(tokenizer.encode(text)[: each.max_tokens])
        answers.append([text] * each.num_samples)
    return answers
