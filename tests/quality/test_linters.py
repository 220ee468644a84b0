"""The linters' verdict on the project, and proof that they would see what they are there for."""

import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
RUFF = BIN / "ruff"
LINT_IMPORTS = BIN / "lint-imports"


@pytest.mark.parametrize(
    "linter",
    [
        [RUFF, "check", "--quiet"],
        [RUFF, "format", "--check"],
        [sys.executable, "-m", "mypy"],
        [LINT_IMPORTS],
    ],
    ids=["ruff check", "ruff format", "mypy", "import-linter"],
)
def test_the_project_passes(linter, root, run):
    result = run(root, *linter)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "statement", "contract"),
    [
        ("tasks/planted.py", "import rt2_jax.launch", "Imports go downwards only"),
        ("rt2_jax/actions/planted.py", "import rt2_jax.client", "Imports go downwards only"),
        ("benchmarks/planted.py", "import rt2_jax.demo", "Imports go downwards only"),
        ("launch/planted.py", "import seqio", "TensorFlow stays in data and tasks"),
        ("rt2_jax/client/planted.py", "import jax", "What runs on the robot needs numpy only"),
    ],
)
def test_a_planted_forbidden_import_breaks_its_contract(
    file, statement, contract, tmp_path, copy_project, run
):
    checkout = copy_project(tmp_path)
    (checkout / file).write_text(statement + "\n")
    result = run(checkout, LINT_IMPORTS, "--no-cache")
    assert result.returncode == 1
    assert f"{contract} BROKEN" in result.stdout, result.stdout + result.stderr


def test_a_package_that_no_layer_names_breaks_the_layers(tmp_path, copy_project, run):
    checkout = copy_project(tmp_path)
    (checkout / "rt2_jax/planted").mkdir()
    (checkout / "rt2_jax/planted/__init__.py").touch()
    result = run(checkout, LINT_IMPORTS, "--no-cache")
    assert result.returncode == 1
    assert "rt2_jax.planted" in result.stdout


def test_mypy_checks_the_tasks_under_their_import_name(tmp_path, copy_project, run):
    checkout = copy_project(tmp_path)
    (checkout / "tasks/planted.py").write_text('count: int = "three"\n')
    result = run(checkout, sys.executable, "-m", "mypy", "-m", "rt2_jax.tasks.planted")
    assert result.returncode == 1
    assert "rt2_jax/tasks/planted.py:1: error: Incompatible types" in result.stdout


@pytest.mark.parametrize("folder", ["rt2_jax/actions", "rt2_jax/client"])
@pytest.mark.parametrize(
    "newer",
    ["match 1:\n    case _:\n        pass\n", "with (open('a') as a, open('b') as b):\n    pass\n"],
)
def test_syntax_newer_than_python_3_8_is_refused_where_robots_run_it(folder, newer, root, run):
    planted = ("--stdin-filename", f"{folder}/planted.py", "-")
    result = run(root, RUFF, "check", "--no-cache", *planted, stdin=f'"""Planted."""\n\n{newer}')
    assert result.returncode == 1
    assert "on Python 3.8" in result.stdout, result.stdout
