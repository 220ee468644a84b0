"""The tiny run."""

import pathlib
import runpy
import types

import jax
import pytest

TINY_RUN = pathlib.Path(__file__).with_name("tiny_run.py")


@pytest.fixture(scope="package", autouse=True)
def quick_compilation():
    """Tiny models take far longer to compile than to run."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def tiny():
    """Everything that `tiny_run.py` defines, and its own path."""
    return types.SimpleNamespace(**runpy.run_path(str(TINY_RUN)), path=TINY_RUN)


@pytest.fixture(scope="package")
def compiled(tiny, quick_compilation):
    """`tiny.Compiled`: `compiled.run(directory, total_steps)` starts a run."""
    return tiny.Compiled()
