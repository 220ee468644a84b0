"""A small policy: untrained, and one that knows its training steps by heart."""

import pathlib
import runpy
import types

import pytest

SMALL_POLICY = pathlib.Path(__file__).with_name("small_policy.py")


@pytest.fixture(scope="session")
def small():
    """Everything that `small_policy.py` defines."""
    return types.SimpleNamespace(**runpy.run_path(str(SMALL_POLICY)))


@pytest.fixture(scope="session")
def caches(small, tmp_path_factory):
    """A folder with the caches of both splits and the manifest."""
    root = tmp_path_factory.mktemp("caches")
    small.write_caches(root)
    return root


@pytest.fixture(scope="session")
def untrained(small, caches, tmp_path_factory):
    """A checkpoint of random weights."""
    description = small.describe(caches)
    state, _ = small.make_state(description, caches)
    return small.write_checkpoint(tmp_path_factory.mktemp("untrained"), description, state)


@pytest.fixture(scope="session")
def learn(small, caches, tmp_path_factory):
    """`learn(description)`: a checkpoint that knows all steps of the training split by heart."""

    def make(description):
        state, batch = small.make_state(description, caches)
        params, loss = small.overfit(description, state.params, batch)
        assert loss < 0.05
        directory = tmp_path_factory.mktemp("trained")
        return small.write_checkpoint(directory, description, state.replace(params=params))

    return make


@pytest.fixture(scope="session")
def trained(small, caches, learn):
    """A checkpoint that knows all steps of the training split by heart."""
    return learn(small.describe(caches))
