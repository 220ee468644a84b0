"""Questions that are answered in words: on the model's thread too, and after every action."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rt2_jax.serving.batching import BatchingQueue, DeadlineError, PolicyError
from rt2_jax.serving.busy import BusyError

_MOST_WAITING = 16
_LONGEST_S = 60.0  # that a question waits if it names no budget
_LOOK_AGAIN_S = 0.002
_MOST_TOKENS = 4096
_MOST_SAMPLES = 16


@dataclasses.dataclass(frozen=True)
class TextQuestion:
    """What is to be answered in words.

    Attributes:
      prompt: as the model reads it, in the words of its training (`Answer in en: ...`).
      max_tokens: of an answer; None for as many as the model was trained with.
      temperature: 0 takes the likeliest tokens.
      top_k: draws among the likeliest so many tokens; 0 for all.
      num_samples: how many answers.
      seed: of what is drawn.
      budget_ms: the answer must be ready within so many milliseconds of its arrival.
      picture: uint8 [H, W, 3], or None.

    Raises:
      TypeError, ValueError: a field of another type, or out of its range.
    """

    prompt: str
    max_tokens: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    num_samples: int = 1
    seed: int = 0
    budget_ms: float | None = None
    picture: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise TypeError(f"prompt: found {type(self.prompt).__name__}, expected text")
        if not self.prompt.strip():
            raise ValueError("prompt: it is empty")
        for name, least, most, kind in (
            ("max_tokens", 1, _MOST_TOKENS, int),
            ("temperature", 0, 100, float),
            ("top_k", 0, 256, int),
            ("num_samples", 1, _MOST_SAMPLES, int),
            ("seed", 0, 2**32 - 1, int),
            ("budget_ms", 0, math.inf, float),
        ):
            value = getattr(self, name)
            if value is None:
                continue
            kinds = int if kind is int else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise TypeError(f"{name}: found {str(value)[:40]!r}, expected a number")
            if not least <= value <= most:
                raise ValueError(f"{name}: found {value}, expected {least} to {most}")


AnswerInWords = Callable[[Sequence[TextQuestion]], Sequence[Sequence[str]]]
"""A policy's `answer`, which it need not have: for each question, `num_samples` texts."""


class TextQueue:
    """One question at a time, and none while a robot waits.

    An answer that has begun is not broken off: robots that ask meanwhile wait for its end.

    Args:
      answer: of the policy.
      actions: the queue whose thread it shares.
    """

    def __init__(self, answer: AnswerInWords, actions: BatchingQueue) -> None:
        self._answer_all = answer
        self._actions = actions
        self._one = asyncio.Lock()
        self._waiting = 0

    async def ask(self, question: TextQuestion) -> list[str]:
        """The answers to a question.

        Raises:
          BusyError: too many wait. DeadlineError: not within the budget.
          PolicyError: the policy failed. ValueError: it cannot read the question.
        """
        if self._waiting >= _MOST_WAITING:
            raise BusyError(f"{self._waiting} questions wait already; ask again later")
        budget_s = _LONGEST_S if question.budget_ms is None else question.budget_ms / 1000
        self._waiting += 1
        try:
            async with asyncio.timeout(budget_s):
                async with self._one:
                    while self._actions.waiting:
                        await asyncio.sleep(_LOOK_AGAIN_S)
                    texts = await self._actions.run(self._answer, question)
        except TimeoutError as error:
            raise DeadlineError(f"no answer within {1000 * budget_s:.0f} ms") from error
        finally:
            self._waiting -= 1
        return texts

    def _answer(self, question: TextQuestion) -> list[str]:
        """On the model's thread."""
        answers: Any = self._answer_all([question])
        texts = list(answers[0]) if len(answers) == 1 else []
        if not texts or not all(isinstance(text, str) for text in texts):
            raise PolicyError(f"the policy gave {str(answers)[:100]}, expected a list of texts")
        return texts
