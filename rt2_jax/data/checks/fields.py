"""Checks of single numbers: NaN, dead fields, ranges, clipping, spikes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rt2_jax.actions.bounds import FixedBounds, QuantileBounds
from rt2_jax.actions.space import ActionField
from rt2_jax.data.checks.finding import Finding
from rt2_jax.data.checks.survey import Survey

RANGE_FLOOR = 0.01
"""The floor of `ActionStatistics`, in the field's unit: below it noise would fill all bins."""
FEW_BINS = 1 / 16
"""Fixed bounds of which q01..q99 take less than this leave 16 of 256 bins: motions look alike."""
CLIPPED = 0.05
"""Share outside of fixed bounds. Quantile bounds clip 2 %, so more than twice that is no tail."""
FENCE = 5.0
"""A value this many ranges q01..q99 beyond them is a spike: for a normal one that is 25 sigma."""
JUMP = 20.0
"""Jumps there and back, each this many times the 95th percentile of changes, are a spike."""


def check_not_finite(survey: Survey) -> Iterator[Finding]:
    """NaN and infinity, and vectors of another length than declared."""
    for (kind, name), seen in survey.seen.items():
        if kind == "not finite":
            yield Finding(
                "error",
                "not-finite",
                name,
                f"{seen.count} of {survey.steps} values are NaN or infinite",
                "leave these steps out or repair them in the task's preprocessors; caching "
                "refuses them",
                survey.split,
                seen.first,
            )
        elif kind == "wrong shape":
            yield Finding(
                "error",
                "wrong-shape",
                name,
                f"{seen.count} episodes hold another number of values than is declared",
                "make the declared fields those of the data; nothing else is checked there",
                survey.split,
                seen.first,
            )


def check_dead_fields(survey: Survey) -> Iterator[Finding]:
    """Fields with one value in all steps. A `terminate` without an end is told elsewhere."""
    if survey.info.robot is None or survey.steps < 2:
        return
    robot = survey.info.robot
    tables = (
        ("action", robot.action_space.names, survey.actions),
        ("state", robot.state_fields, survey.states),
    )
    for kind, names, values in tables:
        for i, name in enumerate(names):
            if ("no end", name) in survey.seen and kind == "action":
                continue
            if len(values) and (values[:, i] == values[0, i]).all():
                yield Finding(
                    "warning",
                    "dead-field",
                    f"{kind} {name}",
                    f"always {values[0, i]:g}",
                    "check the column it is read from; a model learns nothing about it",
                    survey.split,
                )


def check_ranges(survey: Survey) -> Iterator[Finding]:
    """Ranges q01..q99 against bounds: near zero, few bins in use, clipped."""
    if survey.info.robot is None or not len(survey.actions):
        return
    for i, field in enumerate(survey.info.robot.action_space.fields):
        values = survey.actions[:, i]
        if field.levels is not None or (values == values[0]).all():
            continue
        q01, q99 = np.quantile(values.astype(np.float64), (0.01, 0.99))
        name = f"action {field.name}"
        if isinstance(field.bounds, QuantileBounds) and q99 - q01 < RANGE_FLOOR:
            yield Finding(
                "warning",
                "near-zero-range",
                name,
                f"q01..q99 is {q01:.3g}..{q99:.3g} {_unit(field)}, less than the floor "
                f"{RANGE_FLOOR:g}, to which its bounds get widened",
                "a field that hardly moves: check its unit, or declare fixed bounds",
                survey.split,
            )
        elif isinstance(field.bounds, FixedBounds):
            yield from _against_bounds(survey, i, field, field.bounds, q99 - q01)


def _against_bounds(
    survey: Survey, index: int, field: ActionField, bounds: FixedBounds, spread: float
) -> Iterator[Finding]:
    values, low, high = survey.actions[:, index], bounds.low, bounds.high
    clipped = float(((values < np.float32(low)) | (values > np.float32(high))).mean())
    if clipped > CLIPPED:
        gripper = field.polarity is not None
        yield Finding(
            "error" if gripper else "warning",
            "clipped",
            f"action {field.name}",
            f"{clipped:.1%} of its values are outside {low:g} to {high:g} {_unit(field)}; they "
            f"reach from {values.min():.3g} to {values.max():.3g}",
            "rescale the gripper to its declared bounds" if gripper else "check unit and bounds",
            survey.split,
        )
    elif spread < FEW_BINS * (high - low):
        yield Finding(
            "warning",
            "few-bins",
            f"action {field.name}",
            f"q01..q99 takes {256 * spread / (high - low):.1f} of 256 bins between {low:g} and "
            f"{high:g} {_unit(field)}",
            "check the unit, or declare tighter bounds or QuantileBounds()",
            survey.split,
        )


def check_spikes(survey: Survey) -> Iterator[Finding]:
    """Single values far from all others (changes), or from both neighbours (positions)."""
    if survey.info.robot is None:
        return
    robot = survey.info.robot
    for i, field in enumerate(robot.action_space.fields):
        if field.levels is None and field.polarity is None:
            absolute = field.reference == "absolute"
            yield from _spikes(survey, "action", i, field.name, jumps=absolute)
    for i, name in enumerate(robot.state_fields):
        if "gripper" not in name:
            yield from _spikes(survey, "state", i, name, jumps=True)


def _spikes(survey: Survey, kind: str, index: int, name: str, *, jumps: bool) -> Iterator[Finding]:
    table = survey.actions if kind == "action" else survey.states
    if not len(table):
        return
    q01, q99 = np.quantile(table[:, index].astype(np.float64), (0.01, 0.99))
    columns = [getattr(e, f"{kind}s")[:, index].astype(np.float64) for e in survey.kept]
    with np.errstate(invalid="ignore"):  # infinity is told elsewhere
        changes = np.concatenate([np.abs(np.diff(column)) for column in columns])
    changes = changes[np.isfinite(changes)]
    spread = q99 - q01
    if not len(changes) or spread <= 0:
        return
    least = JUMP * max(float(np.quantile(changes, 0.95)), 0.1 * spread)
    count, first, value = 0, None, 0.0
    for episode, column in zip(survey.kept, columns, strict=True):
        if jumps:
            change = np.nan_to_num(np.diff(np.where(np.isfinite(column), column, np.nan)))
            back = (np.sign(change[1:]) != np.sign(change[:-1])) & (
                np.minimum(np.abs(change[1:]), np.abs(change[:-1])) > least
            )
            where = np.flatnonzero(back) + 1
        else:
            where = np.flatnonzero(np.maximum(column - q99, q01 - column) > FENCE * spread)
        if len(where) and first is None:
            first, value = episode.place(int(where[0])), float(column[where[0]])
        count += len(where)
    if first is not None:
        yield Finding(
            "warning",
            "spike",
            f"{kind} {name}",
            f"{count} values stand alone, the first {value:.4g}; q01..q99 is {q01:.4g}..{q99:.4g}",
            "look at the episode (rt2 data inspect) and leave it out if a sensor failed",
            survey.split,
            first,
        )


def _unit(field: ActionField) -> str:
    return "(ratio)" if field.unit == "1" else field.unit
