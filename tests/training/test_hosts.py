"""How the processes of a run find each other: by flags, or by what a cluster says."""

import subprocess
import sys

import pytest

from rt2_jax.training.hosts import Hosts, cluster_in


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "SLURM"),
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"}, "GKE TPU"),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "a", "TPU_WORKER_HOSTNAMES": "a"}, "TPU slices"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
    ],
)
def test_a_cluster_is_known_by_its_environment(environment, found):
    assert cluster_in(environment) == found


def test_flags_come_before_the_cluster_and_off_means_alone(monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    assert Hosts().may_be_many
    assert not Hosts(detect=False).may_be_many
    assert Hosts("a:1", 2, 0, detect=False).may_be_many


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("a:1", 2, None), "expected all three or none"),
        ((None, 2, 0), "expected all three or none"),
        (("a:1", 2, 2), "--process-index: found 2 of 2"),
        (("a", 2, 0), "expected HOST:PORT"),
    ],
)
def test_flags_that_do_not_fit_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Hosts(*values)


def test_the_watching_process_gives_the_status_and_makes_an_abort_retryable():
    program = """
import os, sys
from rt2_jax.training.guard import guarded
first = guarded(lambda: 7, "x")
second = guarded(os.abort, "x")
third = guarded(lambda: os.kill(os.getpid(), 9), "x")
assert "jax" not in sys.modules and "numpy" not in sys.modules
sys.exit(0 if (first, second, third) == (7, 75, 137) else str((first, second, third)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("x: error: the distributed runtime ended this process") == 1


def test_the_watching_process_passes_on_that_a_trace_is_wanted():
    program = """
import os, signal, time
from rt2_jax.training.guard import guarded
parent = os.getpid()
def wait():
    asked = []
    signal.signal(signal.SIGUSR1, lambda *_: asked.append(True))
    time.sleep(0.5)  # until the other one listens
    os.kill(parent, signal.SIGUSR1)
    end = time.monotonic() + 20
    while not asked and time.monotonic() < end:
        time.sleep(0.01)
    return 7 if asked else 1
raise SystemExit(guarded(wait, "x"))
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 7
