"""`rt2 train` in real processes, alone and several as one."""

import os
import socket
import subprocess
import sys

import pytest


@pytest.fixture(scope="package")
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
