"""What the page of `rt2 data inspect` shows: sample steps, histograms and films of each task."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.codec import BoundCodec
from rt2_jax.actions.statistics import ActionStatistics, compute_statistics, resolve_bounds
from rt2_jax.data.resolve import find_tasks
from rt2_jax.data.step import TaskStep
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.data.task_steps import open_steps
from rt2_jax.data.vocabulary.tokenizer import Tokenizer

READ_STEPS = 500  # without a cache: they are held in memory with their pictures
_FILM_FRAMES = 12
_FEW_BINS, _MANY_CLIPPED = 16, 0.05  # of 256, and of the values; a gripper may well have two


@dataclass(frozen=True)
class Field:
    """All values of one action field against its bounds.

    Attributes:
      name: of the field.
      unit: of the field.
      meaning: one line for a robot engineer.
      edges: float64 [bars + 1], from the least value or bound to the greatest.
      counts: int [bars].
      low: resolved bound.
      high: resolved bound.
      bins: how many levels the codec has for it.
      bins_used: how many of them occur.
      clipped: share of values outside the bounds.
      levels: names of a discrete field's levels.
      alarming: whether a person should look: one bin in use, few of a motion, or many clipped.
    """

    name: str
    unit: str
    meaning: str
    edges: np.ndarray
    counts: np.ndarray
    low: float
    high: float
    bins: int
    bins_used: int
    clipped: float
    levels: tuple[str, ...]
    alarming: bool


@dataclass(frozen=True)
class ShownStep:
    """A step as a person and as the model see it.

    Attributes:
      step: as it is cached.
      prompt: filled.
      target: text that the model is to write: an answer, or the action.
      prompt_ids: its tokens.
      target_ids: its tokens.
      decoded: float32 [D], what the target means to a robot; D = 0 in a web task.
      clipped: bool [D], which values the codec clipped.
    """

    step: TaskStep
    prompt: str
    target: str
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    decoded: np.ndarray
    clipped: np.ndarray


@dataclass(frozen=True)
class Film:
    """An episode: some of its steps, and all of its actions and states."""

    steps: tuple[TaskStep, ...]
    actions: np.ndarray
    states: np.ndarray


@dataclass(frozen=True)
class TaskInspection:
    """What the page shows of one task.

    Attributes:
      info: what the task declares.
      share: of the mixture.
      origin: where its steps were read, in words.
      steps: how many there are, or were read.
      episodes: likewise.
      lengths: tokens of prompts and targets of the steps that were read, int [N, 2].
      statistics: of its actions; None for a web task.
      fields: of its actions.
      shown: sample steps.
      films: whole episodes; () for a web task.
    """

    info: TaskInfo
    share: float
    origin: str
    steps: int
    episodes: int
    lengths: np.ndarray
    statistics: ActionStatistics | None
    fields: tuple[Field, ...]
    shown: tuple[ShownStep, ...]
    films: tuple[Film, ...]


def inspect_mixture(
    name: str,
    split: str,
    tokenizer: Tokenizer,
    *,
    cache_dir: str | pathlib.Path | None = None,
    steps: int = 6,
    films: int = 2,
    report: Callable[[str, int], None] = lambda task, steps: None,
) -> list[TaskInspection]:
    """Reads what the page shows of each task of a mixture (or of one task).

    Args:
      name: of the mixture or task.
      split: of its tasks.
      tokenizer: whose ids are shown.
      cache_dir: folder of all caches; of a task that is not cached there the first 500 steps are
        read through SeqIO.
      steps: samples of each task, evenly over all that is read.
      films: whole episodes of each robot task.
      report: called with a task and the number of steps that were read.

    Raises:
      KeyError: no such mixture. FileNotFoundError: no data on this disk.
      ValueError: a step that cannot be used.
    """
    inspections = []
    for task, share in find_tasks(name):
        source = open_steps(task, split, cache_dir)
        info, cache = source.info, source.cache
        read: Sequence[TaskStep]
        if cache is not None:
            read = cache  # type: ignore[assignment]
            actions, origin = cache.actions(), "cache"
            counts = cache.info.steps, cache.info.episodes
        else:
            held: list[TaskStep] = []
            for step in source:
                if len(held) == READ_STEPS:
                    break
                step.check(info)
                held.append(step)
                report(task.name, len(held))
            if not held:
                raise ValueError(f"task {task.name!r}, split {split!r}: there are no steps")
            read, actions = held, np.stack([step.action for step in held])
            whole = "all" if len(held) < READ_STEPS else "the first"
            origin = f"{whole} {len(held)} steps through SeqIO, not cached"
            counts = len(held), sum(step.step == 0 for step in held)
        codec, statistics = None, None
        fields: tuple[Field, ...] = ()
        if info.robot is not None:
            space = info.robot.action_space
            statistics = compute_statistics(space, info.robot.embodiment, actions)
            codec = UniformBins().bind(space, resolve_bounds(space, statistics))
            fields = _fields(codec, actions)
        # The middles of equal parts: the very first and last steps are seldom typical.
        indices = np.unique(((np.arange(steps) + 0.5) / steps * len(read)).astype(int))
        measured = np.unique(np.linspace(0, len(read) - 1, READ_STEPS).round().astype(int))
        lengths = []
        for i in measured:
            each = _show(info, read[int(i)], codec, tokenizer)
            lengths.append((len(each.prompt_ids) + 1, len(each.target_ids) + 1))
            report(task.name, len(lengths))
        inspections.append(
            TaskInspection(
                info=info,
                share=share,
                origin=origin,
                steps=counts[0],
                episodes=counts[1],
                lengths=np.array(lengths),
                statistics=statistics,
                fields=fields,
                shown=tuple(_show(info, read[int(i)], codec, tokenizer) for i in indices),
                films=_films(read, films) if info.robot is not None else (),
            )
        )
    return inspections


def _show(
    info: TaskInfo, step: TaskStep, codec: BoundCodec | None, tokenizer: Tokenizer
) -> ShownStep:
    prompt = info.fill_prompt(step.text.strip() if codec else step.text)
    target, decoded = step.target, np.zeros(0, np.float32)
    clipped = np.zeros(0, bool)
    if codec is not None:
        encoded = codec.encode(step.action[None])
        target, decoded = codec.to_text(encoded.levels), codec.decode(encoded.levels)[0]
        clipped = encoded.clipped > 0
    return ShownStep(
        step,
        prompt,
        target,
        tuple(tokenizer.encode(prompt)),
        tuple(tokenizer.encode(target)),
        decoded,
        clipped,
    )


def _fields(codec: BoundCodec, actions: np.ndarray) -> tuple[Field, ...]:
    encoded = codec.encode(actions[:, None])
    bars = 64 if len(actions) >= 1000 else 32
    fields = []
    for i, field in enumerate(codec.space.fields):
        low, high = float(codec.bounds.low[i]), float(codec.bounds.high[i])
        values = actions[:, i].astype(np.float64)
        bins = len(field.levels or ()) or codec.codec.count
        if field.levels is None:
            margin = 0.05 * (high - low)
            span = (min(low, values.min()) - margin, max(high, values.max()) + margin)
            counts, edges = np.histogram(values, bars, span)
        else:
            counts, edges = np.histogram(values, np.arange(bins + 1) - 0.5)
        used = len(np.unique(encoded.levels[:, 0, i]))
        clipped = float(encoded.clipped[i] / len(actions))
        motion = field.levels is None and field.polarity is None
        fields.append(
            Field(
                field.name,
                field.unit,
                field.describe(),
                edges,
                counts,
                low,
                high,
                bins,
                used,
                clipped,
                field.levels or (),
                used == 1 or clipped > _MANY_CLIPPED or (motion and used < _FEW_BINS),
            )
        )
    return tuple(fields)


def _films(steps: Sequence[TaskStep], count: int) -> tuple[Film, ...]:
    """Whole episodes from the beginning, middle, ... of what was read."""
    films: dict[int, Film] = {}
    for position in np.linspace(0, len(steps) - 1, count + 1)[:-1].astype(int):
        first = int(position) - steps[int(position)].step
        if first in films:
            continue
        episode = [steps[first]]
        while first + len(episode) < len(steps) and steps[first + len(episode)].step > 0:
            episode.append(steps[first + len(episode)])
        frames = np.unique(np.linspace(0, len(episode) - 1, _FILM_FRAMES).round().astype(int))
        films[first] = Film(
            tuple(episode[i] for i in frames),
            np.stack([step.action for step in episode]),
            np.stack([step.state for step in episode]),
        )
    return tuple(films.values())
