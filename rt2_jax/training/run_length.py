"""How long a run is, for programs that watch its folder: `<model_dir>/run.json`."""

from __future__ import annotations

import json
import pathlib

RUN_FILE = "run.json"


def write_run_length(directory: pathlib.Path, total_steps: int) -> None:
    """Says after how many steps the run ends; written at each start, whole or not at all."""
    unfinished = directory / f"{RUN_FILE}.unfinished"
    unfinished.write_text(json.dumps({"total_steps": total_steps}) + "\n")
    unfinished.replace(directory / RUN_FILE)


def read_run_length(directory: pathlib.Path) -> int | None:
    """After how many steps the run ends; None where it has not said so, or not yet.

    Raises:
      ValueError: the file is damaged.
    """
    path = directory / RUN_FILE
    try:
        found = json.loads(path.read_text())["total_steps"]
        if type(found) is not int or found < 1:
            raise ValueError(f"found {found!r}, expected a number of steps")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: does not say how long the run is ({error})") from error
    return found
