"""Running programs on the project, or on a copy of it, from outside."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFTOVERS = ("__pycache__", ".git", ".venv*", ".*_cache", ".hypothesis", "*.egg-info", "build")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope="session")
def run() -> Run:
    """`run(folder, *command, stdin="")`: runs in a folder that is all it sees of any checkout."""

    def run(folder: Path, *command: object, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            input=stdin,
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture(scope="session")
def copy_project() -> Callable[[Path], Path]:
    """`copy_project(folder)`: a copy of the project, links kept, to plant things in or to build."""

    def copy(folder: Path) -> Path:
        ignored = shutil.ignore_patterns(*LEFTOVERS)
        return shutil.copytree(ROOT, folder / "checkout", symlinks=True, ignore=ignored)

    return copy
