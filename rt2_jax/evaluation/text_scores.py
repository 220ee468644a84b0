"""How good answers in words are, by the measures that a task is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rt2_jax.evaluation.caption_tokens import caption_tokens
from rt2_jax.evaluation.cider import cider_d
from rt2_jax.evaluation.vqa_accuracy import PEOPLE, normalised_answer, vqa_accuracy


@dataclass(frozen=True)
class TextScore:
    """A measure's mean.

    Attributes:
      name: `vqa_accuracy`, `vqa_exact_match` or `cider_d`.
      value: the mean; accuracies are 0 to 1, CIDEr-D is 0 to 10.
      count: of what it is the mean.
      of: what these are: `questions` or `pictures`.
    """

    name: str
    value: float
    count: int
    of: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"name": self.name, "value": self.value, self.of: self.count}


@dataclass(frozen=True)
class Judged:
    """An answer with what it is judged by.

    Attributes:
      answer: of the model.
      target: the recorded answer.
      references: what several people answered; () where only the target is known.
    """

    answer: str
    target: str
    references: tuple[str, ...] = ()


def vqa_scores(answers: Sequence[Judged]) -> list[TextScore]:
    """`vqa_accuracy` over questions with the answers of ten people, `vqa_exact_match` over others.

    The latter counts the answers that are equal to the only one that is known, both normalised as
    VQAv2 does: not VQAv2's accuracy, and so not called it.
    """
    asked_ten = [each for each in answers if len(each.references) == PEOPLE]
    others = [each for each in answers if len(each.references) != PEOPLE]
    right = [vqa_accuracy(each.answer, each.references) for each in asked_ten]
    equal = [normalised_answer(each.answer) == normalised_answer(each.target) for each in others]
    return [
        TextScore(name, sum(values) / len(values), len(values), "questions")
        for name, values in (("vqa_accuracy", right), ("vqa_exact_match", equal))
        if values
    ]


def caption_scores(answers: Sequence[Judged]) -> list[TextScore]:
    """`cider_d` of one caption to a picture; nothing of a single picture, where it is always 0."""
    if len(answers) < 2:
        return []
    scores = cider_d(
        [caption_tokens(each.answer) for each in answers],
        [[caption_tokens(text) for text in each.references] for each in answers],
    )
    return [TextScore("cider_d", float(scores.mean()), len(answers), "pictures")]
