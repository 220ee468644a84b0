"""`--json F`: results as a file, too."""

from __future__ import annotations

import json
import pathlib
from typing import Any


def check_writable(path: str | None) -> None:
    """Before the work, not after it. Raises ValueError."""
    if path is not None and (pathlib.Path(path).is_dir() or not pathlib.Path(path).parent.is_dir()):
        raise ValueError(f"--json {path}: expected a file's name in a folder that exists")


def write_json(path: str | None, data: dict[str, Any]) -> None:
    """Writes the file, if one was asked for."""
    if path is not None:
        pathlib.Path(path).write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")
