"""Real T5X and `rt2 train` give the same losses and parameters; skipped where T5X is not installed.

`RT2_T5X_PYTHON` is an interpreter that has it, if this one does not: see docs/t5x.md.
"""

import os
import subprocess
import sys

import pytest

from rt2_jax.benchmarks.t5x_losses import compare, make_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def t5x_python():
    python = os.environ.get("RT2_T5X_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import t5x.train"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"no T5X in {python}: {found.stderr.strip().splitlines()[-1]}")
    return python


def test_twenty_steps_of_the_demo_under_t5x_follow_our_own_trainer(t5x_python, tmp_path):
    make_data(tmp_path, episodes=4, scenes=20)
    found = compare(t5x_python, tmp_path)
    assert len(found.ours) == len(found.t5x) == 20
    assert found.ours[-1] < found.ours[0] - 1
    assert found.losses < 1e-5
    assert found.steps == (5, 10, 15, 20)
    for weights, moments in zip(found.weights, found.moments, strict=True):
        assert len(weights) > 40
        assert max(weights.values()) < 1e-5, max(weights, key=weights.get)
        assert moments < 1e-5
