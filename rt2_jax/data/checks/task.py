"""Checks a registered task: all of its splits, and the raw data set behind them."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import seqio

from rt2_jax.data.checks.episodes import (
    check_copies,
    check_ends,
    check_lengths,
    check_splits,
    check_texts,
)
from rt2_jax.data.checks.fields import (
    check_dead_fields,
    check_not_finite,
    check_ranges,
    check_spikes,
)
from rt2_jax.data.checks.finding import Finding, findings_table
from rt2_jax.data.checks.motion import check_gripper, check_motion
from rt2_jax.data.checks.pictures import check_pictures
from rt2_jax.data.checks.rlds import check_rlds, read_rlds
from rt2_jax.data.checks.survey import Survey, survey_steps
from rt2_jax.data.registration import data_path
from rt2_jax.data.rlds_reader import RldsSource
from rt2_jax.data.task_steps import open_steps

CHECKS = (
    check_not_finite,
    check_motion,
    check_gripper,
    check_dead_fields,
    check_ranges,
    check_spikes,
    check_ends,
    check_lengths,
    check_copies,
    check_texts,
    check_pictures,
)
"""Each takes the survey of one split and yields findings."""


@dataclass(frozen=True)
class TaskReport:
    """What was read of a task, and what was found.

    Attributes:
      task: its name.
      read: split -> (episodes, steps); raw splits are called "raw NAME".
      findings: of all checks.
    """

    task: str
    read: dict[str, tuple[int, int]]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """How many of the findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    def describe(self) -> str:
        """A few lines for people."""
        lines = [
            f"{self.task} {split}: {episodes} episodes, {steps} steps"
            for split, (episodes, steps) in self.read.items()
        ]
        return "\n".join([*lines, findings_table(self.findings)])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "task": self.task,
            "read": {split: list(counts) for split, counts in self.read.items()},
            "findings": [finding.to_json() for finding in self.findings],
        }


def check_survey(survey: Survey) -> list[Finding]:
    """The findings of every check of a split."""
    return [finding for check in CHECKS for finding in check(survey)]


def check_task(
    task: seqio.Task,
    splits: Sequence[str] = (),
    *,
    cache_dir: str | pathlib.Path | None = None,
    episodes: int | None = None,
    report: Callable[[str, int], None] = lambda split, steps: None,
) -> TaskReport:
    """Reads a task's splits once each and runs every check.

    Where its source is an RLDS folder on this disk, that is read as well: columns and splits that
    the task leaves out may say something about those that it uses.

    Args:
      task: registered with `robot_task` or `web_task`.
      splits: of the task; () for all.
      cache_dir: folder of all caches; splits that are cached there are read from there.
      episodes: how many of each split are read; None for all.
      report: called with the split and the number of its steps after each episode.

    Raises:
      FileNotFoundError: the data are not on this disk.
      ValueError: no such split, or data that cannot be read.
    """
    surveys = []
    for split in splits or task.splits:
        steps = open_steps(task, split, cache_dir)
        surveys.append(
            survey_steps(
                steps.info,
                split,
                steps.of_episodes(episodes),
                report=lambda count, split=split: report(split, count),  # type: ignore[misc]
            )
        )
    findings = [finding for survey in surveys for finding in check_survey(survey)]
    findings += check_splits(surveys)
    read = {survey.split: (survey.episodes, survey.steps) for survey in surveys}
    source = task.source
    if isinstance(source, RldsSource):
        directory = data_path(source.directory)
        if (directory / "features.json").is_file():
            raw = read_rlds(directory, episodes=episodes, report=lambda count: report("raw", count))
            findings += check_rlds(raw)
            read |= {f"raw {split.name}": (split.episodes, split.steps) for split in raw}
    return TaskReport(task.name, read, tuple(findings))
