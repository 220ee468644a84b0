"""All that a watcher measures of a checkpoint, as numbers with names."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rt2_jax.evaluation.closed_loop import Evaluation, evaluate
from rt2_jax.evaluation.models import engine_source, seen_pictures
from rt2_jax.evaluation.offline import RobotReport, evaluate_offline
from rt2_jax.evaluation.pointing import PointingReport, evaluate_pointing
from rt2_jax.evaluation.suite import Suite
from rt2_jax.evaluation.web_report import WebReport
from rt2_jax.inference.engine import NotFiniteScoresError, PolicyEngine
from rt2_jax.inference.programs import Compiled

_UNITS = {"1": "ratio", "level": "levels"}
_SESSION_SIZES = (1, 2, 4, 8)  # of closed loops, whose sessions do not all ask at once


class BadCheckpointError(Exception):
    """A checkpoint that cannot be read, or whose weights give no finite numbers."""


@dataclasses.dataclass(frozen=True)
class OfflineSettings:
    """What `evaluate_offline` is asked for; see there."""

    cache_dir: str
    split: str = "validation"
    tasks: tuple[str, ...] = ()
    limit: int | None = None


@dataclasses.dataclass(frozen=True)
class PointingSettings:
    """What `evaluate_pointing` is asked for; see there."""

    pictures: str
    levels: int = 16
    limit: int | None = None


@dataclasses.dataclass
class CheckpointScores:
    """Measures checkpoints of one run; programs are compiled for the first of them only.

    Attributes:
      offline: on cached steps, or None.
      suite: of the closed loop, or None; cameras and size become those of the model.
      pointing: the pointing game, or None.
      batch_size: of offline evaluation and pointing.
      parallel: environments at once, see `closed_loop.evaluate`.
      compiled: the programs; None before the first checkpoint.
      which: `params`, or `ema` for their average.
    """

    offline: OfflineSettings | None = None
    suite: Suite | None = None
    pointing: PointingSettings | None = None
    batch_size: int = 32
    parallel: int | None = None
    compiled: Compiled | None = None
    which: str = "params"

    def __post_init__(self) -> None:
        if self.offline is None and self.suite is None and self.pointing is None:
            raise ValueError("nothing to evaluate: neither steps nor a closed loop nor pictures")

    def settings(self) -> dict[str, Any]:
        """What is evaluated, plain JSON: results of equal settings are of one kind."""
        found: dict[str, Any] = {} if self.which == "params" else {"parameters": self.which}
        if self.offline is not None:
            found["offline"] = dataclasses.asdict(self.offline)
            del found["offline"]["cache_dir"]  # it may be somewhere else the next time
        if self.suite is not None:
            found["closed_loop"] = {
                "skills": list(self.suite.skills),
                "episodes": self.suite.episodes,
                "seed": self.suite.seed,
                "instruction": self.suite.instruction,
            }
        if self.pointing is not None:
            found["pointing"] = dataclasses.asdict(self.pointing)
        return found

    def __call__(self, checkpoint: pathlib.Path) -> tuple[dict[str, float], dict[str, Any]]:
        """Reads a checkpoint and measures it.

        Returns:
          The numbers, and the whole reports as plain JSON.

        Raises:
          BadCheckpointError: see there; another checkpoint may be a good one.
          KeyError, ValueError, OSError: what is asked for cannot be measured of any.
        """
        sizes = (self.batch_size, *(_SESSION_SIZES if self.suite is not None else ()))
        try:
            engine = PolicyEngine.from_checkpoint(
                checkpoint, sizes, self.which, compiled=self.compiled
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BadCheckpointError(str(error)) from error
        self.compiled = engine.compiled
        numbers: dict[str, float] = {}
        report: dict[str, Any] = {"checkpoint": engine.checkpoint}
        try:
            for name, found, data in self._measure(engine):
                numbers.update(found)
                report[name] = data
        except NotFiniteScoresError as error:
            raise BadCheckpointError(str(error)) from error
        return numbers, report

    def _measure(self, engine: PolicyEngine) -> Iterator[tuple[str, dict[str, float], Any]]:
        if self.offline is not None:
            reports = evaluate_offline(
                engine,
                self.offline.cache_dir,
                self.offline.tasks,
                split=self.offline.split,
                limit=self.offline.limit,
            )
            yield "offline", offline_numbers(reports), [each.to_json() for each in reports]
        if self.pointing is not None:
            pointed = evaluate_pointing(
                engine,
                self.pointing.pictures,
                levels=self.pointing.levels,
                limit=self.pointing.limit,
            )
            yield "pointing", pointing_numbers(pointed), pointed.to_json()
        if self.suite is not None:
            source = engine_source(engine, engine.checkpoint)
            cameras, (height, width) = seen_pictures(source, self.suite.cameras, (64, 64))
            render = dataclasses.replace(self.suite.render, height=height, width=width)
            suite = dataclasses.replace(self.suite, cameras=cameras, render=render)
            played = evaluate(suite, source, parallel=self.parallel)
            yield "closed_loop", closed_loop_numbers(played), played.to_json()


def offline_numbers(reports: Sequence[RobotReport | WebReport]) -> dict[str, float]:
    """`TASK/FIELD/mean_error_UNIT`, `TASK/token_accuracy`, `TASK/vqa_accuracy` and so on.

    `mean/token_accuracy` and `mean/exact_answers` are over the robot tasks and the web tasks, each
    task of one weight.
    """
    numbers: dict[str, float] = {}
    for report in reports:
        name = report.task.name
        if isinstance(report, WebReport):
            numbers[f"{name}/exact_answers"] = report.exact.rate
            for score in report.scores:
                numbers[f"{name}/{score.name}"] = score.value
            continue
        assert report.task.robot is not None
        numbers[f"{name}/token_accuracy"] = report.policy.token_accuracy
        numbers[f"{name}/exact_actions"] = report.policy.exact.rate
        for i, field in enumerate(report.task.robot.action_space.fields):
            unit = _UNITS.get(field.unit, re.sub(r"\W+", "_", field.unit))
            for kind in ("mean_error", "median_error"):
                error = getattr(report.policy, kind)[i]
                numbers[f"{name}/{field.name}/{kind}_{unit}"] = float(error)
    for kind, robots in (("token_accuracy", True), ("exact_answers", False)):
        values = [
            numbers[f"{report.task.name}/{kind}"]
            for report in reports
            if isinstance(report, RobotReport) == robots
        ]
        if values:
            numbers[f"mean/{kind}"] = sum(values) / len(values)
    return numbers


def pointing_numbers(report: PointingReport) -> dict[str, float]:
    """`pointing/strict`, `pointing/grown` and `pointing/nearest`, over all questions."""
    return {f"pointing/{name}": rate.rate for name, rate in report.rows[0].rates.items()}


def closed_loop_numbers(played: Evaluation) -> dict[str, float]:
    """`closed_loop/SKILL/success`, `closed_loop/success` over all episodes."""
    numbers = {f"closed_loop/{skill}/success": played.rate(skill).rate for skill in played.skills}
    successes = sum(result.success for result in played.results)
    numbers["closed_loop/success"] = successes / len(played.results)
    return numbers


Scores = Callable[[pathlib.Path], tuple[Mapping[str, float], Mapping[str, Any]]]
"""What `CheckpointScores` is: from a checkpoint to numbers and reports."""
