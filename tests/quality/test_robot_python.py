"""The robot's distribution, installed and imported by a real Python 3.8."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rt2_jax.serving.server import PolicyServer
from tests.serving.conftest import Toy

USE = """
import importlib, pkgutil, sys
import rt2_jax.actions, rt2_jax.client
assert sys.version_info[:2] == (3, 8)
for package in (rt2_jax.actions, rt2_jax.client):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
    for name in package.__all__:
        getattr(package, name)
"""
ASK = """
import asyncio, sys
import numpy as np
from rt2_jax.client import AsyncRemotePolicy, Observation, RemotePolicy, run_episode

picture = np.full((4, 6, 3), 100, np.uint8)
SEEN = Observation({"front": picture, "wrist": picture}, "go", session="old robot")

class Robot:
    moved = []
    observe = lambda self: SEEN
    apply = lambda self, action: self.moved.append(round(float(action[1]), 4))
    stop = lambda self: self.moved.append("stop")

with RemotePolicy(sys.argv[1], budget_ms=5000, reconnect="always", patience_s=5) as policy:
    summary = run_episode(policy, Robot(), session="old robot", max_ticks=2)
    assert summary.reason == "max_ticks", summary
    assert Robot.moved == [0.01, 0.01, "stop"], Robot.moved

async def several():
    async with AsyncRemotePolicy(sys.argv[1], budget_ms=5000) as policy:
        await policy.reset("old robot")
        return await asyncio.gather(*(policy.infer(SEEN) for _ in range(2)), return_exceptions=True)

older, newer = asyncio.run(several())
assert newer["actions"].shape == (1, 8), newer
"""


@pytest.fixture(scope="module")
def python_3_8():
    """A Python 3.8 on PATH or among pyenv's, that runs."""
    candidates = [shutil.which("python3.8"), *Path.home().glob(".pyenv/versions/3.8*/bin/python")]
    for candidate in filter(None, candidates):
        version = subprocess.run([candidate, "--version"], capture_output=True, text=True).stdout
        if version.startswith("Python 3.8."):
            return candidate
    pytest.skip("no Python 3.8 on PATH or in ~/.pyenv/versions")


def test_the_client_installs_and_imports_on_python_3_8(python_3_8, tmp_path, copy_project, run):
    client = copy_project(tmp_path) / "packages/rt2_client"
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    result = run(client, sys.executable, "-c", build, tmp_path)
    assert result.returncode == 0, result.stderr
    subprocess.run([python_3_8, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    (wheel,) = tmp_path.glob("*.whl")
    install = run(tmp_path, python, "-m", "pip", "install", "--quiet", "--prefer-binary", wheel)
    if "numpy" in install.stderr and install.returncode != 0:
        pytest.skip(f"numpy for Python 3.8 cannot be installed here: {install.stderr[-300:]}")
    assert install.returncode == 0, install.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    result = run(empty, python, "-c", USE)
    assert result.returncode == 0, result.stderr
    with PolicyServer(Toy(), port=0).in_thread() as url:
        result = run(empty, python, "-c", ASK, url)
    assert result.returncode == 0, result.stderr
