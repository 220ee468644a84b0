"""One pass over a task's steps that keeps what the checks need, in bounded memory."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from rt2_jax.data.checks.finding import Place
from rt2_jax.data.image import decode_image
from rt2_jax.data.step import TaskStep
from rt2_jax.data.task_info import TaskInfo

KEPT_STEPS = 200_000  # 40 numbers a step are 32 MB; quantiles and correlations need no more
_KEPT_TEXTS = 1000  # enough to know that instructions differ
_FROZEN_STEPS = 3  # two equal pictures are also a robot that waits


@dataclass(frozen=True)
class Episode:
    """The numbers of one episode.

    Attributes:
      number: in its split, from 0.
      id: the data set's name for it.
      actions: float32 [T, D], native units.
      states: float32 [T, S].
    """

    number: int
    id: str
    actions: np.ndarray
    states: np.ndarray

    def place(self, step: int) -> Place:
        """A step of it."""
        return Place(self.number, self.id, step)


@dataclass
class Seen:
    """How often something was seen, and where first."""

    count: int = 0
    first: Place | None = None

    def add(self, place: Place) -> None:
        """Counts it once more."""
        self.count += 1
        self.first = self.first or place


@dataclass
class Survey:
    """What one split of a task holds.

    Attributes:
      info: what the task declares.
      split: of the task.
      steps: how many there are.
      lengths: how many episodes have each length.
      seen: what a step or episode can have wrong, by (kind, field).
      episode_digests: of the numbers and texts of each episode; the first place of each.
      twins: an episode and the earlier one of the split that it equals.
      texts: distinct instructions, at most 1,000.
      kept: episodes whose numbers are kept: all, or every n-th where the steps are more than
        `kept_steps`.
    """

    info: TaskInfo
    split: str
    kept_steps: int = KEPT_STEPS
    steps: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    seen: dict[tuple[str, str], Seen] = field(default_factory=dict)
    episode_digests: dict[bytes, Place] = field(default_factory=dict)
    twins: list[tuple[Place, Place]] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)
    kept: list[Episode] = field(default_factory=list)
    _stride: int = 1
    _held: int = 0  # steps of `kept`

    @property
    def episodes(self) -> int:
        """How many there are."""
        return self.lengths.total()

    @property
    def actions(self) -> np.ndarray:
        """The kept actions, float32 [N, D], finite ones only."""
        return _finite([episode.actions for episode in self.kept])

    @property
    def states(self) -> np.ndarray:
        """The kept states, float32 [N, S], finite ones only."""
        return _finite([episode.states for episode in self.kept])

    def see(self, kind: str, name: str, place: Place) -> None:
        """Counts one sighting."""
        self.seen.setdefault((kind, name), Seen()).add(place)

    def count(self, kind: str, name: str) -> int:
        """How many sightings there were."""
        return self.seen[kind, name].count if (kind, name) in self.seen else 0

    def keep(self, episode: Episode) -> None:
        """Keeps an episode's numbers, or leaves them out evenly where there are too many."""
        if episode.number % self._stride == 0:
            self.kept.append(episode)
            self._held += len(episode.actions)
        while self._held > self.kept_steps and len(self.kept) > 1:
            self._stride *= 2
            self.kept = [e for e in self.kept if e.number % self._stride == 0]
            self._held = sum(len(e.actions) for e in self.kept)


def survey_steps(
    info: TaskInfo,
    split: str,
    steps: Iterable[TaskStep],
    *,
    kept_steps: int = KEPT_STEPS,
    report: Callable[[int], None] = lambda steps: None,
) -> Survey:
    """Reads steps, episode after episode; a damaged step is noted, never raised.

    Args:
      info: what the task declares.
      split: of the task.
      steps: in order, the steps of an episode one after the other.
      kept_steps: see `Survey.kept`.
      report: called with the number of steps after each episode.
    """
    survey = Survey(info, split, kept_steps)
    for episode in _by_episode(steps):
        survey.steps += len(episode)
        survey.lengths[len(episode)] += 1
        _texts(survey, episode)
        _pictures(survey, episode)
        _numbers(survey, episode)
        report(survey.steps)
    return survey


def _by_episode(steps: Iterable[TaskStep]) -> Iterator[list[TaskStep]]:
    episode: list[TaskStep] = []
    for step in steps:
        if episode and step.step == 0:
            yield episode
            episode = []
        episode.append(step)
    if episode:
        yield episode


def _place(step: TaskStep) -> Place:
    return Place(step.episode, step.episode_id, step.step)


def _texts(survey: Survey, episode: list[TaskStep]) -> None:
    robot = survey.info.robot is not None
    for step in episode:
        name = "text" if robot else "target"
        text = step.text if robot else step.target
        if not text.strip():
            survey.see("empty text", name, _place(step))
        elif text[:2] in ("b'", 'b"') and text[-1] == text[1]:
            survey.see("bytes as text", name, _place(step))
    if len(survey.texts) < _KEPT_TEXTS:
        survey.texts |= {step.text.strip() for step in episode}


def _pictures(survey: Survey, episode: list[TaskStep]) -> None:
    views = survey.info.views
    for i, view in enumerate(views):
        pictures = [step.images[i] if i < len(step.images) else None for step in episode]
        for step, picture in zip(episode, pictures, strict=True):
            kind = "missing picture" if picture is None else picture_kind(picture)
            if kind:
                survey.see(kind, view, _place(step))
        if len(episode) >= _FROZEN_STEPS and pictures[0] and len(set(pictures)) == 1:
            survey.see("frozen view", view, _place(episode[0]))
    for step in episode:
        if len(step.images) == len(views) > len(set(step.images)):
            survey.see("equal views", ", ".join(views), _place(step))


@lru_cache(maxsize=16)  # blank pictures and those of a camera that hangs come again and again
def picture_kind(data: bytes) -> str:
    """What is wrong with an encoded picture: "damaged", "black", "one colour", or ""."""
    try:
        pixels = decode_image(data)
    except ValueError:
        return "damaged picture"
    if (pixels == pixels[0, 0]).all():
        return "one-colour picture" if pixels.any() else "black picture"
    return ""


def _numbers(survey: Survey, episode: list[TaskStep]) -> None:
    robot = survey.info.robot
    head = episode[0]
    if robot is None:
        _remember(survey, head, (head.text, head.target, *head.images))
        return
    names = {"action": robot.action_space.names, "state": robot.state_fields}
    columns = {}
    for kind, fields in names.items():
        rows = [getattr(step, kind) for step in episode]
        for step, row in zip(episode, rows, strict=True):
            if row.shape != (len(fields),):
                survey.see("wrong shape", kind, _place(step))
                return
            for index in np.flatnonzero(~np.isfinite(row)):
                survey.see("not finite", f"{kind} {fields[index]}", _place(step))
        columns[kind] = np.stack(rows).astype(np.float32)
    actions, states = columns["action"], columns["state"]
    for i, action_field in enumerate(robot.action_space.fields):
        if action_field.levels is not None and "terminate" in action_field.levels:
            over = actions[:, i] == action_field.levels.index("terminate")
            if not over[-1]:
                survey.see("no end", action_field.name, _place(episode[-1]))
            if over[:-1].any():
                early = episode[int(over.argmax())]
                survey.see("goes on after the end", action_field.name, _place(early))
    # An episode in which nothing moves says nothing about being a copy.
    if len(np.unique(actions, axis=0)) > 1 or len(np.unique(states, axis=0)) > 1:
        _remember(survey, head, (head.text, actions.tobytes(), states.tobytes()))
    survey.keep(Episode(head.episode, head.episode_id, actions, states))


def _remember(survey: Survey, head: TaskStep, parts: tuple[str | bytes, ...]) -> None:
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    first = survey.episode_digests.setdefault(digest.digest(), _place(head))
    if first != _place(head):
        survey.twins.append((_place(head), first))


def _finite(arrays: list[np.ndarray]) -> np.ndarray:
    if not arrays:
        return np.zeros((0, 0), np.float32)
    joined = np.concatenate(arrays)
    return joined[np.isfinite(joined).all(axis=1)]
