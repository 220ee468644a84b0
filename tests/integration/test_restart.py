"""`python -m rt2_jax.train` in real processes: killed and started again; two that train as one."""

import json
import random
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

pytestmark = pytest.mark.slow

TIMES = ("seconds_per_step", "examples_per_second", "data_wait")


def finish(process):
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    return output


def numbers(model_dir):
    """The lines of `metrics.jsonl` without what the clock says."""
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in kept]


def state(model_dir, step):
    with ocp.PyTreeCheckpointer() as checkpointer:
        return jax.tree.leaves_with_path(
            checkpointer.restore(model_dir / f"checkpoint_{step}" / "state")
        )


def assert_losses_within_float_noise(found, expected):
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for name in ("loss", "tiny_arm/loss", "tiny_web/loss", "gradient_norm"):
        np.testing.assert_allclose(
            [line[name] for line in found], [line[name] for line in expected], rtol=2e-4
        )


def test_killed_at_random_steps_a_run_ends_bit_for_bit_as_one_that_was_not(
    start, full_check, tmp_path
):
    kills = 20 if full_check else 3
    steps = 50 * (kills + 1)  # more than the processes take before they are killed
    flags = (f"--gin.TRAIN_STEPS={steps}", "--gin.SAVE_PERIOD=9")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    with start(whole, *flags) as process:
        finish(process)
    seed = time.time_ns()
    print(f"seed {seed}")
    draw = random.Random(seed)
    for kill in range(kills):
        # Before the first checkpoint; then after it is whole, for the second waits for it.
        wanted = draw.randint(20, 45) if kill else draw.randint(1, 8)
        with start(killed, *flags) as process:
            for line in process.stdout:
                wanted -= line.startswith("step ")
                if not wanted:
                    process.kill()
        assert process.returncode == -signal.SIGKILL
    with start(killed, *flags) as process:
        assert f"going on from {killed}/checkpoint_" in finish(process)
    assert numbers(killed) == numbers(whole)
    assert [line["step"] for line in numbers(whole)] == list(range(1, steps + 1))
    for (name, found), (_, expected) in zip(state(killed, steps), state(whole, steps), strict=True):
        assert np.array_equal(found, expected), jax.tree_util.keystr(name)


def test_two_processes_give_the_losses_of_one_and_go_on_together(start, together, tmp_path):
    flags = ("--gin.LearningRate.steps_per_cycle=6",)
    with start(tmp_path / "one", *flags, devices=2) as process:
        finish(process)
    for steps in (4, 6):
        processes = together(tmp_path / "two", *flags, f"--gin.TRAIN_STEPS={steps}")
        assert "done at step" in finish(processes[0])
        assert "done at step" not in finish(processes[1])  # one of them speaks
    assert_losses_within_float_noise(numbers(tmp_path / "two"), numbers(tmp_path / "one"))


def test_eight_devices_give_the_losses_of_one(start, tmp_path):
    flags = ("--gin.MeshShape.fsdp=2", "--gin.MeshShape.tensor=2")
    with start(tmp_path / "eight", *flags, devices=8) as process:
        assert "mesh {'fsdp': 2, 'data': 2, 'tensor': 2}" in finish(process)
    with start(tmp_path / "one") as process:
        finish(process)
    assert_losses_within_float_noise(numbers(tmp_path / "eight"), numbers(tmp_path / "one"))
