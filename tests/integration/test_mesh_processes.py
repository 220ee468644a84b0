"""`python -m rt2_jax.train` in processes that hold parts of one model between them."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

pytestmark = pytest.mark.slow


def train(model_dir, gin, devices, *flags):
    """A process; its output is a pipe."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "rt2_jax.train", f"--gin_file={gin}"),
            *(f"--gin.MODEL_DIR={model_dir}", "--gin.TRAIN_STEPS=3"),
            *("--gin.MeshShape.data=1", "--gin.MeshShape.fsdp=-1", "--gin.MeshShape.tensor=2"),
            *("--gin.RunConfig.sequence_parallel=True", *flags),
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


def finish(processes):
    for process in processes:
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output


def losses(model_dir):
    lines = (model_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_processes_that_share_a_model_give_the_losses_of_one(tiny_mixture, full_check, tmp_path):
    count = 4 if full_check else 2
    finish([train(tmp_path / "one", tiny_mixture.gin, count)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = (f"--coordinator_address=127.0.0.1:{port}", f"--process_count={count}")
    finish(
        [
            train(tmp_path / "all", tiny_mixture.gin, 1, *together, f"--process_index={index}")
            for index in range(count)
        ]
    )
    assert len(losses(tmp_path / "all")) > 0
    np.testing.assert_allclose(losses(tmp_path / "all"), losses(tmp_path / "one"), rtol=2e-4)
