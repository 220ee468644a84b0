"""Modules of the user's own that register tasks."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable


def import_task_modules(modules: Iterable[str]) -> None:
    """Imports what `--module` names, from the current folder or installed.

    Raises:
      ValueError: there is no such module.
    """
    sys.path.insert(0, os.getcwd())
    try:
        for module in modules:
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                    raise
                raise ValueError(f"--module {module}: no such module here or installed") from error
    finally:
        sys.path.pop(0)
