"""A run of a small policy for the commands that evaluate."""

import pathlib
import runpy
import types

import pytest

FOLDER = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="package")
def small():
    """A small policy: see `tests/inference/small_policy.py`."""
    return types.SimpleNamespace(**runpy.run_path(str(FOLDER / "inference" / "small_policy.py")))


@pytest.fixture(scope="package")
def caches(small, tmp_path_factory):
    root = tmp_path_factory.mktemp("caches")
    small.write_caches(root)
    return root


@pytest.fixture(scope="package")
def run(small, caches, tmp_path_factory):
    """A run's folder with one checkpoint of random weights."""
    description = small.describe(caches)
    state, _ = small.make_state(description, caches)
    return small.write_checkpoint(tmp_path_factory.mktemp("run"), description, state).parent
