"""Questions in words, as the server's `POST /v1/generate` asks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from rt2_jax.actions.sampling import Sampling

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
    def top_k(self) -> int:
        """Draws among the likeliest so many tokens; 0 for all."""

    @property
    def num_samples(self) -> int:
        """How many answers."""

    @property
    def seed(self) -> int:
        """Of what is drawn."""


def answer_in_words(engine: PolicyEngine, questions: Sequence[Asked]) -> list[list[str]]:
    """`num_samples` answers to each question; the likeliest one where none are to be drawn.

    Raises:
      ValueError: a prompt that is too long, or a model that writes actions only.
    """
    from rt2_jax.inference.engine import Question

    answers = []
    for asked in questions:
        sampling = None
        if asked.temperature > 0:
            if asked.num_samples > engine.most_samples:  # it would be compiled while robots wait
                raise ValueError(
                    f"num_samples: found {asked.num_samples} at temperature {asked.temperature:g}, "
                    f"expected at most {engine.most_samples}: start the server with --samples"
                )
            sampling = Sampling(asked.temperature, asked.top_k, asked.num_samples, asked.seed)
        question = Question(asked.prompt, asked.picture)
        written = engine.answers([question], sampling, asked.max_tokens)[0]
        texts = [each.text for each in written]
        answers.append(texts if sampling is not None else texts * asked.num_samples)
    return answers
