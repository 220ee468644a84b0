"""`rt2 train` in real processes, alone and several as one."""

import json
import os
import socket
import subprocess
import sys

import pytest


@pytest.fixture(scope="package")
def start(tiny_mixture):
    """Starts the command on some devices; its output is a pipe.

    The rate does not depend on how many steps there are, so what was compiled for one run is there
    for the next.
    """

    def make(model_dir, *flags, devices=1):
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "rt2_jax.train", f"--gin_file={tiny_mixture.gin}"),
                *(f"--gin.MODEL_DIR={model_dir}", "--gin.LearningRate.steps_per_cycle=2000"),
                *flags,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(devices),
        )

    return make


def environment(devices):
    """Of a process with so many devices; of two flags the later one counts."""
    count = f"--xla_force_host_platform_device_count={devices}"
    flags = f"{os.environ['XLA_FLAGS']} {count}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


@pytest.fixture(scope="package")
def one(start, tmp_path_factory):
    """The folder of six steps by one process on one device: what others are compared with."""
    folder = tmp_path_factory.mktemp("one") / "run"
    with start(folder) as process:
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
    return folder


@pytest.fixture
def numbers():
    """The lines of a run's `metrics.jsonl` without what the clock says."""
    from rt2_jax.training.meter import MEASURED

    def read(model_dir):
        lines = (model_dir / "metrics.jsonl").read_text().splitlines()
        kept = [json.loads(line) for line in lines]
        return [{key: value for key, value in line.items() if key not in MEASURED} for line in kept]

    return read


@pytest.fixture
def together(start):
    """Starts so many processes that train as one, each on one device; kills what is left of them.

    `own` are flags of one process alone, by its number.
    """
    processes = []

    def make(model_dir, *flags, count=2, own=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        flags += (f"--coordinator_address=127.0.0.1:{port}", f"--process_count={count}")
        mine = [
            start(model_dir, *flags, f"--process_index={index}", *(own or {}).get(index, ()))
            for index in range(count)
        ]
        processes.extend(mine)
        return mine

    yield make
    for process in processes:
        process.kill()
        process.communicate()
