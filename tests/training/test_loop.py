"""A run: the same numbers however often it is stopped, and an end that says why."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from rt2_jax.training.loop import LoopConfig, NotFiniteError
from rt2_jax.training.meter import MEASURED


def numbers(directory):
    """Every logged number but the clock's, by step."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [{name: line[name] for name in line if name not in MEASURED} for line in lines]


def assert_bit_for_bit(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture(scope="module")
def uninterrupted(compiled, tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted")
    return jax.device_get(compiled.run(directory, 10).state), numbers(directory)


def test_a_run_in_two_halves_equals_one_bit_for_bit(compiled, uninterrupted, tmp_path):
    compiled.run(tmp_path, 5)
    state = jax.device_get(compiled.run(tmp_path, 10).state)
    assert_bit_for_bit(state, uninterrupted[0])
    assert numbers(tmp_path) == uninterrupted[1]


def test_the_numbers_are_per_source(uninterrupted):
    assert set(uninterrupted[1][0]) == {
        *("step", "skipped_steps", "loss", "gradient_norm", "learning_rate", "accuracy"),
        *("useful_tokens", "target_tokens"),
        *("robot/loss", "robot/accuracy", "robot/examples", "robot/useful_tokens"),
        *("web/loss", "web/accuracy", "web/examples", "web/useful_tokens"),
    }


def test_the_clocks_numbers_are_there(compiled, tmp_path):
    compiled.run(tmp_path, 1)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    expected = {name for name in MEASURED if not name.startswith(("device_", "m"))}
    assert expected <= set(json.loads(line))
    assert json.loads(line)["host_memory_peak_bytes"] > 50e6


def test_a_run_that_failed_between_checkpoints_goes_on_from_the_last(
    tiny, compiled, uninterrupted, tmp_path
):
    class Failing(tiny.Batches):
        def __next__(self):
            if self.step == 8:
                raise OSError("no batch 8")
            return super().__next__()

    with pytest.raises(OSError, match="no batch 8"):
        compiled.run(tmp_path, 10, Failing())
    state = jax.device_get(compiled.run(tmp_path, 10).state)
    assert_bit_for_bit(state, uninterrupted[0])
    assert numbers(tmp_path) == uninterrupted[1]


def test_sigterm_saves_within_a_step_and_the_run_goes_on_later(
    tiny, compiled, uninterrupted, tmp_path
):
    class Terminated(tiny.Batches):
        def __next__(self):
            if self.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__next__()

    before = signal.getsignal(signal.SIGTERM)
    outcome = compiled.run(tmp_path, 10, Terminated())
    assert outcome.stopped and int(outcome.state.step) == 5
    assert signal.getsignal(signal.SIGTERM) is before
    outcome = compiled.run(tmp_path, 10)
    assert not outcome.stopped
    assert_bit_for_bit(jax.device_get(outcome.state), uninterrupted[0])
    assert numbers(tmp_path) == uninterrupted[1]


def test_a_run_that_is_complete_takes_no_step(tiny, compiled, tmp_path):
    class NoMore(tiny.Batches):
        def __next__(self):
            raise AssertionError("a batch was asked for")

    compiled.run(tmp_path, 2)
    assert not compiled.run(tmp_path, 2, NoMore()).stopped


def test_other_data_than_the_checkpoint_was_trained_on_is_refused(tiny, compiled, tmp_path):
    compiled.run(tmp_path, 1)
    with pytest.raises(ValueError, match="data: found seed 9, expected 0"):
        compiled.run(tmp_path, 2, tiny.Batches(seed=9))


def test_steps_that_are_not_finite_are_counted_and_too_many_in_a_row_end_the_run(
    tiny, compiled, tmp_path
):
    class Bad(tiny.Batches):
        def __next__(self):
            bad, batch = self.step in (1, 3, 4), super().__next__()
            batch["decoder_loss_weights"][0, 0] = np.nan if bad else 1
            return batch

    with pytest.raises(NotFiniteError, match="in the last 2 steps, batches 3 to 4; lower"):
        compiled.run(tmp_path, 10, Bad(), max_skipped_in_a_row=2)
    found = numbers(tmp_path)
    assert [line["skipped_steps"] for line in found] == [0, 1, 0, 1]
    assert "loss" not in found[1] and np.isfinite(found[2]["loss"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda batch: batch.pop("source_id"), KeyError, "missing feature 'source_id'"),
        (
            lambda batch: batch.update(source_id=batch["source_id"] + 1),
            ValueError,
            "source_id: found 1 to 2, expected 0 to 1: the sources are robot, web",
        ),
    ],
)
def test_an_example_of_no_source_is_refused(tiny, compiled, tmp_path, change, error, message):
    class Odd(tiny.Batches):
        def __next__(self):
            batch = super().__next__()
            change(batch)
            return batch

    with pytest.raises(error, match=message):
        compiled.run(tmp_path, 2, Odd())


@pytest.mark.parametrize(
    "name", ["total_steps", "log_period", "save_period", "max_skipped_in_a_row"]
)
def test_a_length_that_is_not_positive_is_refused(name):
    with pytest.raises(ValueError, match=f"LoopConfig.{name}: found 0, expected a positive"):
        LoopConfig(**{"total_steps": 1, name: 0})


@pytest.mark.slow
def test_killed_at_random_a_run_goes_on_bit_for_bit(tiny, full_check, tmp_path):
    if not full_check:
        pytest.skip("in the full form only: tests/integration/test_restart.py kills real runs")
    kills = 20
    steps = 50 * (kills + 1)  # more than fit into the seconds before the kills

    def start(directory):
        return subprocess.Popen(
            [sys.executable, tiny.path, directory, str(steps)], stdout=subprocess.PIPE, text=True
        )

    with start(tmp_path / "whole") as whole:
        assert whole.communicate(timeout=500)[0] == "stepping\ndone\n"
    seed = time.time_ns()
    print(f"seed {seed}")
    draw, directory = random.Random(seed), tmp_path / "killed"
    for _ in range(kills):
        with start(directory) as process:
            assert process.stdout.readline() == "stepping\n"
            time.sleep(draw.uniform(0, 1))
            process.kill()
        assert process.returncode == -signal.SIGKILL
    with start(directory) as process:
        assert process.communicate(timeout=500)[0] == "stepping\ndone\n"
    assert numbers(directory) == numbers(tmp_path / "whole")
