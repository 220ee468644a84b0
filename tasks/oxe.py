"""Open X-Embodiment: every data set is a row of `oxe_datasets.toml`, registered as `oxe_<name>`.

The keys of a row, all optional but `embodiment`, `views`, `action` and `citation`:

    like                  another row, whose keys hold where this one says nothing
    directory, version    where it is read from (`<name>/<version>`, version 0.1.0)
    splits                name -> split of the data set (95 % and 5 % of `train`)
    embodiment            the robot; the statistics' key is (embodiment, oxe_<name>)
    control_rate_hz       10 where nobody says; `missing` then names it
    views                 view -> key of the observation
    image_size            [height, width]
    text                  column of the instruction (`language_instruction`)
    space                 one of `SPACES` (`pose`: RT-2's eight fields)
    action, terminate, state, keep, skip_first, every, skip_last    see `RldsColumns`
    state_fields          names of the state's numbers
    metric, frame, reference, rotation, gripper_as_recorded    see `Meaning`
    transitions           steps, as published; mixtures weigh by it
    citation, note        for people
    missing               facts that no source gives
    octo, openvla, published    keys as Octo, OpenVLA or both have them, where this table differs:
                                such a convention is a task of its own, `oxe_<name>_<convention>`
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

import seqio

from rt2_jax.data.rlds_columns import RldsColumns, rlds_task
from rt2_jax.tasks.oxe_spaces import SPACES, Meaning, field_names

TABLE = pathlib.Path(__file__).with_name("oxe_datasets.toml")
CONVENTIONS = ("octo", "openvla", "published")
_SPLITS = {"train": "train[:95%]", "validation": "train[95%:]"}
_COLUMNS = ("terminate", "state", "keep", "skip_first", "every", "skip_last")
_MEANING = tuple(field.name for field in dataclasses.fields(Meaning))
_REQUIRED = ("embodiment", "views", "action", "citation")
_OPTIONAL = (
    *("directory", "version", "splits", "control_rate_hz", "image_size", "text", "space"),
    *("state_fields", "transitions", "note", "missing", *_COLUMNS, *_MEANING, *CONVENTIONS),
)


@functools.cache
def read_rows(path: pathlib.Path = TABLE) -> Mapping[str, Mapping[str, Any]]:
    """The rows of a table by name, with what they take from others.

    Raises:
      ValueError: a row has an unknown key, lacks one, or is like a row that is not there.
    """
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    rows = {}
    for name, row in found.items():
        other = row.pop("like", None)
        if other is not None and other not in found:
            raise ValueError(f"{path.name}: {name} is like {other!r}, which is no row")
        rows[name] = {**found.get(other, {}), **row}
        unknown = sorted(set(rows[name]) - {*_REQUIRED, *_OPTIONAL})
        lacking = sorted(set(_REQUIRED) - set(rows[name]))
        if unknown or lacking:
            raise ValueError(
                f"{path.name}: {name} lacks {lacking} and has unknown {unknown}; known are "
                f"{sorted((*_REQUIRED, *_OPTIONAL))}"
            )
    return rows


def task_name(name: str, convention: str | None = None) -> str:
    """The task of a data set in a convention, or in this project's where it has no other.

    Args:
      name: of the data set.
      convention: "octo", "openvla" or None. Where both agree against this table, the row calls it
        "published".
    """
    row = read_rows()[name]
    for each in (convention, "published" if convention else None):
        if each in row:
            return f"oxe_{name}_{each}"
    return f"oxe_{name}"


def register_rows(path: pathlib.Path = TABLE, prefix: str = "oxe_") -> list[str]:
    """Registers all rows of a table and their conventions; reads no data.

    Args:
      path: of the TOML file: this project's, or one of your own.
      prefix: of the tasks' names.

    Returns:
      The tasks' names.

    Raises:
      ValueError: the message names the row.
    """
    tasks = []
    for name, row in read_rows(path).items():
        plain = {key: value for key, value in row.items() if key not in CONVENTIONS}
        variants = {f"_{key}": row[key] for key in CONVENTIONS if key in row}
        for suffix, changes in {"": {}, **variants}.items():
            try:
                task = _register(name, f"{prefix}{name}{suffix}", {**plain, **changes})
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path.name}: {name}{suffix}: {error.args[0]}") from error
            tasks.append(task.name)
    return tasks


def _register(dataset: str, task: str, row: Mapping[str, Any]) -> seqio.Task:
    if (kind := row.get("space", "pose")) not in SPACES:
        raise ValueError(f"space {kind!r} is not known; known: {sorted(SPACES)}")
    meaning = Meaning(**{key: row[key] for key in _MEANING if key in row})
    columns = RldsColumns(
        views={view: f"observation/{key}" for view, key in row["views"].items()},
        text=row.get("text", "language_instruction"),
        action=row["action"],
        **{key: row[key] for key in _COLUMNS if key in row},
    )
    size = row.get("image_size")
    return rlds_task(
        task,
        row.get("directory", f"{dataset}/{row.get('version', '0.1.0')}"),
        row.get("splits", _SPLITS),
        columns,
        embodiment=row["embodiment"],
        action_space=SPACES[kind](task, row.get("control_rate_hz", 10.0), meaning),
        state_fields=field_names(row.get("state_fields", "")),
        image_size=(size[0], size[1]) if size else None,
    )


TASKS = register_rows()
"""Names of all tasks of the table."""
