"""Offline evaluation of a web task: the model's answers beside those of people."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rt2_jax.data.cache import StepCache
from rt2_jax.data.examples import TaskExamples
from rt2_jax.data.prompts import text_metrics
from rt2_jax.data.step import TaskStep
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.evaluation.success import SuccessRate
from rt2_jax.evaluation.text_scores import Judged, TextScore, caption_scores, vqa_scores
from rt2_jax.inference.engine import PolicyEngine

Report = Callable[[str, int, int], None]
"""Is called with a task's name, the steps that are done, and all."""

_SHOWN = 5


@dataclass(frozen=True)
class WebReport:
    """A web task's result.

    Attributes:
      task: as the checkpoint knows it.
      exact: how many of the steps' recorded answers the model gave, by `normalised`.
      examples: some (text, recorded answer, answer).
      scores: by the measures that the task is judged by.
    """

    task: TaskInfo
    exact: SuccessRate
    examples: tuple[tuple[str, str, str], ...]
    scores: tuple[TextScore, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "task": self.task.name,
            "kind": "web",
            "steps": self.exact.trials,
            "exact_answers": self.exact.to_json(),
            "scores": [score.to_json() for score in self.scores],
            "examples": [
                dict(zip(("text", "recorded", "answer"), example, strict=True))
                for example in self.examples
            ],
        }


def normalised(answer: str) -> str:
    """Lower case, with single blanks between words and none around: what exact match compares."""
    return " ".join(answer.lower().split())


def web_report(
    engine: PolicyEngine,
    number: int,
    task: TaskInfo,
    cache: StepCache,
    chosen: np.ndarray,
    report: Report,
) -> WebReport:
    """Answers the chosen steps, each picture and text once, and compares.

    The captions of a picture are steps of their own; those of the whole split are the references
    of its one answer.

    Args:
      engine: of the checkpoint.
      number: of the task in the checkpoint's mixture.
      task: as the checkpoint knows it.
      cache: of the split.
      chosen: numbers of steps, int [N].
      report: is told of the progress.
    """
    inputs = engine.description.model_inputs
    examples = TaskExamples(number, cache, inputs, None)
    steps = {int(index): cache[int(index)] for index in chosen}
    asked: dict[bytes, int] = {}  # what the model sees -> the first step of it
    for index, step in steps.items():
        asked.setdefault(_seen(step), index)
    answers: dict[bytes, str] = {}
    left, size = list(asked.items()), engine.batch_sizes[-1]
    for first in range(0, len(left), size):
        part = left[first : first + size]
        observed = [inputs.observed(examples.example(index)) for _, index in part]
        for (seen, _), answer in zip(part, engine.decode_text(observed), strict=True):
            answers[seen] = answer
        report(task.name, len(answers), len(asked))
    right = sum(
        normalised(answers[_seen(step)]) == normalised(step.target) for step in steps.values()
    )
    shown = [
        (steps[index].text, steps[index].target, answers[seen]) for seen, index in left[:_SHOWN]
    ]
    scores: list[TextScore] = []
    metrics = text_metrics(task)
    if "vqa_accuracy" in metrics:
        scores += vqa_scores(
            [Judged(answers[_seen(step)], step.target, step.references) for step in steps.values()]
        )
    if "cider_d" in metrics:
        captions = _captions(cache)
        scores += caption_scores([Judged(answers[seen], "", captions[seen]) for seen in asked])
    return WebReport(task, SuccessRate(right, len(steps)), tuple(shown), tuple(scores))


def _seen(step: TaskStep) -> bytes:
    """Tells apart what the model is shown: SHA-256 of pictures and text."""
    digest = hashlib.sha256()
    for part in (*step.images, step.text.encode()):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


class _Captions:
    """A cache as a key: two are equal where their steps are."""

    def __init__(self, cache: StepCache) -> None:
        self.cache = cache

    def __hash__(self) -> int:
        return hash(self.cache.info.hash)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Captions) and self.cache.info.hash == other.cache.info.hash


def _captions(cache: StepCache) -> Mapping[bytes, tuple[str, ...]]:
    return _captions_of(_Captions(cache))


@functools.lru_cache(maxsize=8)  # a watched run is evaluated on the same split again and again
def _captions_of(key: _Captions) -> Mapping[bytes, tuple[str, ...]]:
    """All targets of the split by what is seen; those that brought references with theirs."""
    found: dict[bytes, list[str]] = {}
    for index in range(len(key.cache)):
        step = key.cache[index]
        found.setdefault(_seen(step), []).extend(step.references or (step.target,))
    return {seen: tuple(texts) for seen, texts in found.items()}
