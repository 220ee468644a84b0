"""What a mixture gives a training run: shares in examples and tokens, padding, epochs."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from rt2_jax._text_table import aligned
from rt2_jax.data.cache import StepCache
from rt2_jax.data.registration import step_format
from rt2_jax.data.resolve import find_tasks
from rt2_jax.data.vocabulary.tokenizer import Tokenizer

SAMPLED_STEPS = 1000  # of each task; a mean length is then known to a few per cent


@dataclass(frozen=True)
class PlannedRun:
    """What of a training run decides how much of each task it reads.

    Attributes:
      steps: of training; None where it is not decided.
      batch_size: global, in examples; None where it is not decided.
      encoder_length: tokens of the longest prompt; None for the longest that is found.
      decoder_length: likewise of answers.
      horizon: K, actions in one answer.
      plan_length: tokens for a robot's plan; 0 for none.
      state_numbers: of a robot's state, written before its prompt.
      source_weights: of the loss, by task, where it is not what the task declares.
    """

    steps: int | None = None
    batch_size: int | None = None
    encoder_length: int | None = None
    decoder_length: int | None = None
    horizon: int = 1
    plan_length: int = 0
    state_numbers: int = 0
    source_weights: Mapping[str, float] = field(default_factory=dict)

    def state_tokens(self, tokenizer: Tokenizer) -> int:
        """How many tokens a robot's state takes (of numbers that are one token each)."""
        if not self.state_numbers:
            return 0
        return len(tokenizer.encode(f"State: {' '.join('0' * self.state_numbers)}."))

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "encoder_length", "decoder_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: found {value}, expected 1 or more")


@dataclass(frozen=True)
class TaskShare:
    """One task of a mixture. Shares are of the whole mixture and sum to 1 over its tasks.

    Attributes:
      task: its name.
      embodiment: of a robot task; "" for a web task.
      steps: how many the cache holds.
      episodes: how many the cache holds.
      examples: share of the examples of a batch: its rate over the sum of rates.
      loss_tokens: share of the tokens that count in the loss.
      loss: share of the loss tokens times `source_weights`.
      prompt_tokens: mean over sampled steps, with the end of the sequence.
      target_tokens: likewise, of those that count in the loss.
      longest_prompt: of the sampled steps and the longest texts.
      longest_target: likewise.
      prompt_padding: share of the encoder's positions that hold padding.
      target_padding: likewise of the decoder's.
      too_long: whether the longest does not fit: a run refuses it.
      epochs: how often a run reads each step; None where its length is not decided.
    """

    task: str
    embodiment: str
    steps: int
    episodes: int
    examples: float
    loss_tokens: float
    loss: float
    prompt_tokens: float
    target_tokens: float
    longest_prompt: int
    longest_target: int
    prompt_padding: float
    target_padding: float
    too_long: bool
    epochs: float | None


@dataclass(frozen=True)
class MixtureReport:
    """A mixture for a planned run.

    Attributes:
      mixture: its name.
      split: of its tasks.
      run: what was planned; lengths that were not decided are filled in.
      tasks: in the mixture's order.
    """

    mixture: str
    split: str
    run: PlannedRun
    tasks: tuple[TaskShare, ...]

    @property
    def prompt_padding(self) -> float:
        """Share of all encoder positions of a batch that hold padding."""
        return sum(task.examples * task.prompt_padding for task in self.tasks)

    @property
    def target_padding(self) -> float:
        """Share of all decoder positions of a batch that hold padding."""
        return sum(task.examples * task.target_padding for task in self.tasks)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        padding = {"prompt_padding": self.prompt_padding, "target_padding": self.target_padding}
        return {**asdict(self), **padding, "tasks": [asdict(task) for task in self.tasks]}

    def describe(self) -> str:
        """A table for people."""
        rows = [
            ["task", "kind", "episodes", "steps", "examples", "loss tokens", "weighted"]
            + ["prompt", "target", "padding", "epochs"]
        ]
        for task in self.tasks:
            rows.append(
                [
                    task.task,
                    task.embodiment or "web",
                    f"{task.episodes:,}",
                    f"{task.steps:,}",
                    f"{task.examples:.1%}",
                    f"{task.loss_tokens:.1%}",
                    f"{task.loss:.1%}",
                    f"{task.prompt_tokens:.1f}/{task.longest_prompt}",
                    f"{task.target_tokens:.1f}/{task.longest_target}",
                    f"{task.prompt_padding:.0%} + {task.target_padding:.0%}",
                    "" if task.epochs is None else f"{task.epochs:.2f}",
                ]
            )
        run = self.run
        robot = sum(task.examples for task in self.tasks if task.embodiment)
        robot_tokens = sum(task.loss_tokens for task in self.tasks if task.embodiment)
        lines = [
            f"mixture {self.mixture}, split {self.split}: robots are {robot:.1%} of the examples "
            f"and {robot_tokens:.1%} of the loss tokens",
            aligned(rows),
            f"prompt and target: tokens on average / at most; padded to {run.encoder_length} and "
            f"{run.decoder_length}, of which {self.prompt_padding:.0%} and "
            f"{self.target_padding:.0%} are padding",
        ]
        if run.steps and run.batch_size:
            lines.append(f"epochs: over {run.steps:,} steps of {run.batch_size:,} examples")
        too_long = [task.task for task in self.tasks if task.too_long]
        if too_long:
            lines.append(f"too long for these lengths, a run refuses them: {', '.join(too_long)}")
        return "\n".join(lines)


def report_mixture(
    name: str, root: str | pathlib.Path, split: str, tokenizer: Tokenizer, run: PlannedRun
) -> MixtureReport:
    """Reads lengths of texts from the caches of a mixture (or a task); nothing is written.

    Raises:
      KeyError: no such mixture. FileNotFoundError: a task is not cached.
      ValueError: a damaged cache, or a rate that is no positive number.
    """
    found = find_tasks(name)
    caches = [StepCache(root, task.name, split) for task, _ in found]
    lengths = [_measure(cache, tokenizer, run) for cache in caches]
    run = replace(
        run,
        encoder_length=run.encoder_length or max(each.longest_prompt for each in lengths),
        decoder_length=run.decoder_length or max(each.longest_target for each in lengths),
    )
    assert run.encoder_length is not None and run.decoder_length is not None
    shares = np.array([share for _, share in found])
    counted = np.array([each.counted.mean() for each in lengths])
    weights = np.array(
        [run.source_weights.get(task.name, step_format(task).info.loss_weight) for task, _ in found]
    )
    tokens, loss = shares * counted, shares * counted * weights
    tasks = []
    for i, (cache, each) in enumerate(zip(caches, lengths, strict=True)):
        info = cache.info.task
        drawn = run.steps * run.batch_size * shares[i] if run.steps and run.batch_size else None
        tasks.append(
            TaskShare(
                task=info.name,
                embodiment=info.robot.embodiment if info.robot else "",
                steps=cache.info.steps,
                episodes=cache.info.episodes,
                examples=float(shares[i]),
                loss_tokens=float(tokens[i] / tokens.sum()),
                loss=float(loss[i] / loss.sum()) if loss.sum() else 0.0,
                prompt_tokens=float(each.prompts.mean()),
                target_tokens=float(counted[i]),
                longest_prompt=each.longest_prompt,
                longest_target=each.longest_target,
                prompt_padding=_padding(each.prompts, run.encoder_length),
                target_padding=_padding(each.targets, run.decoder_length),
                too_long=each.longest_prompt > run.encoder_length
                or each.longest_target > run.decoder_length,
                epochs=None if drawn is None else float(drawn / cache.info.steps),
            )
        )
    return MixtureReport(name, split, run, tuple(tasks))


@dataclass(frozen=True)
class _Lengths:
    """Tokens, the end of the sequence included: int arrays [N] over sampled steps."""

    prompts: np.ndarray
    targets: np.ndarray  # with a plan's padding, which comes before the action
    counted: np.ndarray  # in the loss
    longest_prompt: int
    longest_target: int


def _measure(cache: StepCache, tokenizer: Tokenizer, run: PlannedRun) -> _Lengths:
    info, robot = cache.info.task, cache.info.task.robot

    def count(text: str) -> int:
        return len(tokenizer.encode(text)) + 1

    indices = np.linspace(0, len(cache) - 1, min(SAMPLED_STEPS, len(cache))).astype(int)
    sampled = [cache[int(i)] for i in indices]
    if robot is None:
        prompts = [count(info.fill_prompt(step.text)) for step in sampled]
        targets = counted = [count(step.target) for step in sampled]
        longest = max(map(count, cache.info.longest_targets))
    else:
        before = run.state_tokens(tokenizer)
        prompts = [count(info.fill_prompt(step.text.strip())) + before for step in sampled]
        action = run.horizon * robot.action_space.dimension + 1
        longest = action + run.plan_length
        targets = [longest] * len(sampled)
        counted = [action + (count(s.target) if run.plan_length else 0) for s in sampled]
    return _Lengths(
        np.array(prompts),
        np.array(targets),
        np.array(counted),
        max(count(info.fill_prompt(text)) for text in cache.info.longest_texts)
        + (run.state_tokens(tokenizer) if robot else 0),
        longest,
    )


def _padding(lengths: np.ndarray, room: int) -> float:
    return float(np.clip(1 - lengths / room, 0, None).mean())
