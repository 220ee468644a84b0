"""The pointing game: is the answered place on the named object? (Zhang et al. 2016, section 4)"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rt2_jax.data.coco import read_boxes
from rt2_jax.data.places import LOCATIONS, parse_places
from rt2_jax.data.task_info import POINTING_PROMPT
from rt2_jax.evaluation.offline import spread
from rt2_jax.evaluation.success import SuccessRate
from rt2_jax.inference.engine import PolicyEngine, Question

_CRITERIA = ("strict", "grown", "nearest")


@dataclass(frozen=True, eq=False)
class PointingQuestion:
    """An object to be found.

    Attributes:
      picture: its file.
      name: of the object; no other in the picture has it.
      boxes: of all objects of the picture, this one first, [n, 4]: top, left, bottom, right, as
        fractions of the picture's sides.
    """

    picture: pathlib.Path
    name: str
    boxes: np.ndarray

    @property
    def centres(self) -> np.ndarray:
        """Of all objects, (y, x), [n, 2]."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    def judge(self, points: np.ndarray, levels: int) -> dict[str, np.ndarray]:
        """Whether points (y, x) [P, 2] hit, by each criterion, bool [P].

        `strict`: inside the box; `grown`: inside the box with half a level more on every side,
        since no level's centre may lie in a small box; `nearest`: no other object's centre is
        nearer.
        """
        grow = 0.5 / levels
        top_left, bottom_right = self.boxes[0, :2], self.boxes[0, 2:]
        distances = np.linalg.norm(points[:, None] - self.centres, axis=2)
        return {
            "strict": np.all((points >= top_left) & (points <= bottom_right), axis=1),
            "grown": np.all((points >= top_left - grow) & (points <= bottom_right + grow), axis=1),
            "nearest": distances[:, 0] <= distances.min(axis=1),
        }


@dataclass(frozen=True)
class PointingRow:
    """Questions about pictures with equally many objects.

    Attributes:
      objects: in each picture; None for all questions.
      rates: criterion -> hits.
      chance: criterion -> the rate of pointing at the centre of any object of the picture.
    """

    objects: int | None
    rates: dict[str, SuccessRate]
    chance: dict[str, float]


@dataclass(frozen=True)
class PointingReport:
    """The result of the pointing game.

    Attributes:
      rows: the first is of all questions, the others by number of objects.
      unreadable: answers without a place; they count as misses.
      levels: of each axis.
      examples: some (picture's file name, name, answer, hit by `grown`).
    """

    rows: tuple[PointingRow, ...]
    unreadable: int
    levels: int
    examples: tuple[tuple[str, str, str, bool], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "place_levels": self.levels,
            "unreadable": self.unreadable,
            "rows": [
                {
                    "objects": row.objects,
                    "chance": row.chance,
                    **{name: rate.to_json() for name, rate in row.rates.items()},
                }
                for row in self.rows
            ],
            "examples": [
                dict(zip(("picture", "name", "answer", "hit"), example, strict=True))
                for example in self.examples
            ],
        }


def evaluate_pointing(
    engine: PolicyEngine,
    folder: str | pathlib.Path,
    *,
    levels: int = 16,
    limit: int | None = None,
    prompt: str = POINTING_PROMPT,
    report: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> PointingReport:
    """Plays the pointing game on a folder of pictures.

    Args:
      engine: of the checkpoint.
      folder: with `images/` and COCO's `instances.json`.
      levels: that a place has on each axis in training.
      limit: pictures, evenly spread; None takes all.
      prompt: `{text}` stands for the object's name.
      report: is told of the progress.

    Raises:
      FileNotFoundError: no such folder, or a picture is missing.
      ValueError: a damaged file, or no object whose name occurs once.
    """
    if not 1 <= levels <= LOCATIONS:
        raise ValueError(f"place levels: found {levels}, expected 1 to {LOCATIONS}")
    questions = read_questions(folder, limit)
    answers: list[str] = []
    size = engine.batch_sizes[-1]
    for first in range(0, len(questions), size):
        answers += engine.answer(
            [
                Question(prompt.replace("{text}", question.name), question.picture.read_bytes())
                for question in questions[first : first + size]
            ]
        )
        report("pointing", len(answers), len(questions))
    return score(questions, answers, levels)


def score(
    questions: Sequence[PointingQuestion], answers: Sequence[str], levels: int
) -> PointingReport:
    """Judges answers; one without a place is a miss."""
    points = [next(iter(parse_places(answer)), None) for answer in answers]
    hits = {name: np.zeros(len(questions), bool) for name in _CRITERIA}
    chance = {name: np.zeros(len(questions)) for name in _CRITERIA}
    for i, (question, point) in enumerate(zip(questions, points, strict=True)):
        for name, at_centres in question.judge(question.centres, levels).items():
            chance[name][i] = at_centres.mean()
        if point is not None:
            for name, hit in question.judge(np.array([point]), levels).items():
                hits[name][i] = hit[0]
    counts = np.array([len(question.boxes) for question in questions])
    rows = []
    for objects in (None, *sorted({int(count) for count in counts})):
        chosen = np.ones(len(counts), bool) if objects is None else counts == objects
        rates = {
            name: SuccessRate(int(hit[chosen].sum()), int(chosen.sum()))
            for name, hit in hits.items()
        }
        means = {name: float(each[chosen].mean()) for name, each in chance.items()}
        rows.append(PointingRow(objects, rates, means))
    examples = tuple(
        (question.picture.name, question.name, answer, bool(hit))
        for question, answer, hit in zip(questions[:5], answers, hits["grown"], strict=False)
    )
    return PointingReport(tuple(rows), points.count(None), levels, examples)


def read_questions(folder: str | pathlib.Path, limit: int | None = None) -> list[PointingQuestion]:
    """Every object whose name occurs once in its picture, picture by picture.

    Raises:
      FileNotFoundError, ValueError: as `evaluate_pointing`.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: found {limit}, expected 1 or more pictures")
    folder = pathlib.Path(folder)
    path = folder / "instances.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"no file {path}; expected a folder with images/ and instances.json (COCO's format)"
        )
    try:
        photos = [photo for photo in read_boxes(path) if photo.things]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not in COCO's format ({error!r})") from error
    questions = []
    for index in spread(len(photos), limit):
        photo = photos[int(index)]
        picture = folder / "images" / photo.file
        if not picture.is_file():
            raise FileNotFoundError(f"{path} names the picture {photo.file!r}: no {picture}")
        for thing in photo.unique():
            things = [thing, *(other for other in photo.things if other is not thing)]
            left, top, width, height = np.array([each.box for each in things]).T
            boxes = np.stack([top, left, top + height, left + width], axis=1)
            questions.append(PointingQuestion(picture, thing.name, boxes))
    if not questions:
        raise ValueError(f"{path}: no picture has an object whose name occurs once")
    return questions
