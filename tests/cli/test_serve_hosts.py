"""`rt2 serve` in several processes that hold one model between them, and end together."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from rt2_jax.actions.policy import Observation
from rt2_jax.client import RemotePolicy
from rt2_jax.inference.engine import EnginePolicy, PolicyEngine

pytestmark = pytest.mark.slow


def observations():
    draw = np.random.default_rng(0)
    for number in range(4):
        images = {v: draw.integers(0, 256, (24, 32, 3), np.uint8) for v in ("front", "wrist")}
        yield Observation(images, f"push cube {number}", session="one", step=number)


@contextlib.contextmanager
def serving(run):
    """Two processes; the first one serves at the URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "rt2_jax.cli.main", "serve", str(run), "--port=0"),
        *("--batch-sizes=2", "--mesh=tensor=2", "--host-timeout=10", "--process-count=2"),
        f"--coordinator-address=127.0.0.1:{port}",
    ]
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1",
    }
    processes = [
        subprocess.Popen(
            [*command, f"--process-index={index}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for index in range(2)
    ]
    said = ""
    try:
        while not (found := re.search(r"at (ws://\S+)\n(?:.*\n)*ready in", said)):
            line = processes[0].stdout.readline()
            assert line, said
            said += line
        yield *processes, found[1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_answers_are_those_of_one_process_and_sigterm_of_the_first_ends_both_in_order(run):
    with serving(run) as (first, second, url):
        alone = EnginePolicy(PolicyEngine.from_checkpoint(run, (2,)))
        with RemotePolicy(url) as policy:
            assert policy.metadata["weights"] == alone.metadata["weights"]
            policy.reset("one")
            for observation in observations():
                expected = alone.infer(observation)["tokens"]
                np.testing.assert_array_equal(policy.infer(observation)["tokens"], expected)
        second.send_signal(signal.SIGTERM)  # as a cluster does: to all of them
        first.send_signal(signal.SIGTERM)
        outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs


@pytest.mark.parametrize("killed", [0, 1], ids=["first", "second"])
def test_when_one_is_killed_the_other_ends_by_itself_with_75_and_says_why(run, killed, full_check):
    if killed == 0 and not full_check:
        pytest.skip("in the full form only: the one where the second is killed")
    with serving(run) as hosts:
        hosts[killed].kill()
        other = hosts[1 - killed]
        output = other.communicate(timeout=30)[0]
    assert other.returncode == 75, output
    last = [line for line in output.splitlines() if line.startswith("rt2 serve: error: ")]
    assert "start all of them again" in last[-1], output


def test_sigterm_of_the_second_alone_ends_both_with_75_after_the_first_had_time(run, full_check):
    if not full_check:
        pytest.skip("in the full form only: the one where the second is killed")
    with serving(run) as (first, second, _):
        second.send_signal(signal.SIGTERM)
        outputs = [process.communicate(timeout=60)[0] for process in (second, first)]
    assert (first.returncode, second.returncode) == (75, 75), outputs
