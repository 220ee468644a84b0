"""Statistics that Octo and OpenVLA publish (`norm_stats`), as this project's."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rt2_jax.actions.space import ActionSpace
from rt2_jax.actions.statistics import ActionStatistics, StatisticsTable

MOMENTS = ("mean", "std", "min", "q01", "q99", "max")


def published_statistics(
    entry: Mapping[str, Any], embodiment: str, space: ActionSpace, where: str = "norm_stats"
) -> ActionStatistics:
    """Statistics of one data set.

    The published numbers have no `terminate`; where the space begins with it, its moments are those
    of a field that is 0 at the last step of each trajectory and 1 before.

    Args:
      entry: `action` with the moments, each a list, `num_transitions` and perhaps
        `num_trajectories`. `mask` is not needed: a space says itself what has bounds of its own.
      embodiment: the robot.
      space: of the actions; its fields in the order of the published numbers.
      where: what holds the entry, for messages.

    Raises:
      ValueError: a moment is missing, or the numbers are not as many as the space's fields.
    """
    action = entry.get("action", {})
    missing = [name for name in MOMENTS if name not in action]
    if missing or "num_transitions" not in entry:
        raise ValueError(
            f"{where}: expected 'action' with {list(MOMENTS)} and 'num_transitions', found "
            f"{sorted(action)} and {sorted(entry)}"
        )
    steps = int(entry["num_transitions"])
    moments: dict[str, Any] = {name: [float(x) for x in action[name]] for name in MOMENTS}
    found = len(moments["mean"])
    if found == space.dimension - 1 and space.fields[0].levels is not None:
        ends = int(entry.get("num_trajectories", 0)) / steps
        for name, value in _terminate(ends).items():
            moments[name].insert(0, value)
    elif found != space.dimension:
        raise ValueError(
            f"{where}: {found} numbers, but action space {space.name!r} has the "
            f"{space.dimension} fields {list(space.names)}"
        )
    return ActionStatistics(embodiment, space, count=steps, **moments)


def _terminate(ends: float) -> dict[str, float]:
    """Moments of a field that is 0 in a share of steps and 1 in the others."""
    return {
        "mean": 1 - ends,
        "std": math.sqrt(ends * (1 - ends)),
        "min": 0.0 if ends else 1.0,
        "q01": 0.0 if ends > 0.01 else 1.0,
        "q99": 1.0,
        "max": 1.0,
    }


def load_published_statistics(
    path: str | os.PathLike[str], wanted: Mapping[str, tuple[str, ActionSpace]]
) -> StatisticsTable:
    """Statistics out of a JSON file: OpenVLA's `config.json`, or a `dataset_statistics.json`.

    Args:
      path: of the file, with the entries at its top or below `norm_stats`.
      wanted: key in the file -> (embodiment, action space).

    Raises:
      KeyError: a key is not in the file; the message lists those that are.
      ValueError: the file is no JSON, or what `published_statistics` refuses.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: no JSON file: {error}") from None
    entries = data.get("norm_stats", data)
    absent = sorted(set(wanted) - set(entries))
    if absent:
        raise KeyError(f"{path}: has no statistics of {absent}; it has {sorted(entries)}")
    return StatisticsTable(
        tuple(
            published_statistics(entries[key], embodiment, space, f"{path}: {key}")
            for key, (embodiment, space) in wanted.items()
        )
    )
