"""`python -m rt2_jax.train` in real processes: killed and started again; two that train as one."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

pytestmark = pytest.mark.slow

TIMES = ("seconds_per_step", "examples_per_second", "data_wait")


@pytest.fixture(scope="module")
def compiled_programs(tmp_path_factory):
    """Where the processes keep their compiled programs, so that a restart is quick."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def start(tiny_mixture, compiled_programs):
    """Starts the command on some devices; its output is a pipe."""

    def make(model_dir, *flags, devices=1):
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "rt2_jax.train", f"--gin_file={tiny_mixture.gin}"),
                *(f"--gin.MODEL_DIR={model_dir}", f"--compilation_cache={compiled_programs}"),
                *flags,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            },
        )

    return make


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


def test_two_processes_give_the_losses_of_one_and_go_on_together(start, tmp_path):
    flags = ("--gin.LearningRate.steps_per_cycle=6",)
    with start(tmp_path / "one", *flags, devices=2) as process:
        finish(process)
    for steps in (4, 6):
        together(start, tmp_path / "two", *flags, f"--gin.TRAIN_STEPS={steps}")
    assert_losses_within_float_noise(numbers(tmp_path / "two"), numbers(tmp_path / "one"))


def together(start, model_dir, *flags):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags += (f"--coordinator_address=127.0.0.1:{port}", "--process_count=2")
    first = start(model_dir, *flags, "--process_index=0")
    second = start(model_dir, *flags, "--process_index=1")
    with first, second:
        assert "done at step" in finish(first)
        assert "done at step" not in finish(second)  # one of them speaks


def test_eight_devices_give_the_losses_of_one(start, tmp_path):
    flags = ("--gin.MeshShape.fsdp=2", "--gin.MeshShape.tensor=2")
    with start(tmp_path / "eight", *flags, devices=8) as process:
        assert "mesh {'replica': 1, 'fsdp': 2, 'data': 2, 'sequence': 1, 'tensor': 2}" in finish(
            process
        )
    with start(tmp_path / "one") as process:
        finish(process)
    assert_losses_within_float_noise(numbers(tmp_path / "eight"), numbers(tmp_path / "one"))
