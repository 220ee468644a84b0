"""The world keeps its promises, and its pixels, on the oldest MuJoCo that setup.py allows."""

import os
import pathlib
import re
import subprocess
import venv

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TESTS = ("test_env", "test_policies", "test_render_hits", "test_render_ray", "test_scene")


@pytest.mark.slow
def test_the_world_runs_on_the_oldest_mujoco_that_is_allowed(full_check, tmp_path):
    if not full_check:
        pytest.skip("in the full form only: tests/sim runs the same on the MuJoCo installed here")
    oldest = re.search(r"mujoco>=([0-9.]+)", (ROOT / "setup.py").read_text(encoding="utf-8"))[1]
    venv.create(tmp_path / "old", with_pip=True)
    python = tmp_path / "old" / "bin" / "python"
    packages = [f"mujoco=={oldest}.0", "gymnasium", "hypothesis", "pillow", "pytest"]
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    subprocess.run(install, check=True)
    files = [ROOT / "tests" / "sim" / f"{name}.py" for name in TESTS]
    checked = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout[-3000:]
    assert " passed" in checked.stdout.splitlines()[-1]
