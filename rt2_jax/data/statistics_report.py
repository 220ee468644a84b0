"""Statistics of a mixture's actions from its steps, and how they differ from those in a file."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rt2_jax._text_table import aligned
from rt2_jax.actions.statistics import (
    ActionStatistics,
    StatisticsTable,
    compute_statistics,
    resolve_bounds,
)
from rt2_jax.data.registration import step_format
from rt2_jax.data.resolve import find_tasks
from rt2_jax.data.task_steps import open_steps

_QUANTILES = ("q01", "q99")


@dataclass(frozen=True)
class Measured:
    """Statistics of one (embodiment, action space) and the actions that they are of.

    Attributes:
      statistics: of the actions.
      actions: float32 [N, D].
      tasks: that they come from.
    """

    statistics: ActionStatistics
    actions: np.ndarray
    tasks: tuple[str, ...]

    def describe(self) -> str:
        """The table of `ActionStatistics.describe` with clipping, and a warning for the floor."""
        lines = [f"from {', '.join(self.tasks)}", self.statistics.describe(self.actions)]
        if self.statistics.floored:
            lines.append(
                f"warning: {', '.join(self.statistics.floored)}: q01..q99 is narrower than the "
                f"range floor {self.statistics.range_floor:g}; check units, or declare fixed bounds"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Difference:
    """One quantile of one field in two sets of statistics.

    Attributes:
      key: "EMBODIMENT, SPACE".
      field: of the action space.
      quantile: "q01" or "q99".
      here: measured now.
      there: in the file.
      share: |here - there| as a share of the file's q01..q99 (of the floor where that is wider).
    """

    key: str
    field: str
    quantile: str
    here: float
    there: float
    share: float


def measure_statistics(
    name: str,
    split: str,
    root: str | pathlib.Path | None,
    report: Callable[[str, int], None] = lambda task, steps: None,
) -> list[Measured]:
    """Statistics of each (embodiment, action space) of a task or mixture.

    Args:
      name: of the task or mixture.
      split: of its tasks.
      root: folder of all caches; what is not cached there is read through SeqIO.
      report: called with the task and the number of its steps.

    Raises:
      KeyError: no such task or mixture.
      ValueError: no robot in it, an action that cannot be used, or two spaces of one name.
    """
    groups: dict[tuple[str, str], list[tuple[str, Any, np.ndarray]]] = {}
    for task, _ in find_tasks(name):
        robot = step_format(task).info.robot
        if robot is None:
            continue
        steps = open_steps(task, split, root)
        if steps.cache is not None:
            actions = steps.cache.actions()
        else:
            rows = []
            for step in steps:
                rows.append(step.action)
                report(task.name, len(rows))
            actions = np.array(rows)
        key = (robot.embodiment, robot.action_space.name)
        groups.setdefault(key, []).append((task.name, robot.action_space, actions))
    if not groups:
        raise ValueError(f"{name!r} has no robot task, so there are no action statistics")
    measured = []
    for (embodiment, _), parts in groups.items():
        space = parts[0][1]
        for task_name, other, _ in parts[1:]:
            space.check_same(other, f"task {task_name!r}")
        actions = np.concatenate([part[2] for part in parts])
        statistics = compute_statistics(space, embodiment, actions)
        measured.append(Measured(statistics, actions, tuple(part[0] for part in parts)))
    return measured


def compare(measured: list[Measured], other: StatisticsTable) -> list[Difference]:
    """All differences of quantiles, as shares of the other's range.

    Raises:
      KeyError: the file has no statistics of an (embodiment, action space).
      ValueError: they are of another space of that name.
    """
    found = []
    for each in measured:
        here = each.statistics
        there = other.get(here.embodiment, here.space)
        for i, action_field in enumerate(here.space.fields):
            if action_field.levels is not None:
                continue
            spread = max(there.q99[i] - there.q01[i], there.range_floor)
            for quantile in _QUANTILES:
                now, then = getattr(here, quantile)[i], getattr(there, quantile)[i]
                found.append(
                    Difference(
                        f"{here.embodiment}, {here.space.name}",
                        action_field.name,
                        quantile,
                        now,
                        then,
                        abs(now - then) / spread,
                    )
                )
    return found


def differences_table(differences: list[Difference], tolerance: float) -> str:
    """The quantiles that differ by more than `tolerance`, and how many there are."""
    wide = [each for each in differences if each.share > tolerance]
    rows = [["field", "quantile", "here", "in the file", "of its range"]]
    rows += [
        [f"{e.key}: {e.field}", e.quantile, f"{e.here:.5g}", f"{e.there:.5g}", f"{e.share:.1%}"]
        for e in wide
    ]
    summary = (
        f"{len(wide)} of {len(differences)} quantiles differ by more than {tolerance:.1%} of the "
        "file's range q01..q99"
    )
    return f"{aligned(rows)}\n{summary}" if wide else summary


def to_json(measured: list[Measured], differences: list[Difference] | None) -> dict[str, Any]:
    """A `StatisticsTable` in plain JSON, with clipping and differences beside it."""
    shares = {}
    for each in measured:
        statistics = each.statistics
        outside = resolve_bounds(statistics.space, statistics).outside(each.actions).mean(axis=0)
        shares[f"{statistics.embodiment}, {statistics.space.name}"] = dict(
            zip(statistics.space.names, outside.tolist(), strict=True)
        )
    data: dict[str, Any] = {
        "statistics": [each.statistics.to_json() for each in measured],
        "clipped": shares,
    }
    if differences is not None:
        data["differences"] = [asdict(difference) for difference in differences]
    return data
