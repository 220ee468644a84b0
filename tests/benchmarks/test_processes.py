"""CPU time is that of a process and of all below it, alive or not."""

import os
import subprocess
import sys

from rt2_jax.benchmarks.processes import cpu_seconds, family

BUSY = """
import time
while time.process_time() < 0.3:
    pass
"""


def test_what_children_used_counts_while_they_live_and_after():
    before = cpu_seconds()
    alive = [sys.executable, "-c", BUSY + "print(flush=True)\ninput()"]
    with subprocess.Popen(alive, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert set(family(os.getpid())) >= {os.getpid(), child.pid}
        assert cpu_seconds() - before > 0.28
        assert 0.28 < cpu_seconds(child.pid) < cpu_seconds()
        child.communicate(b"\n")
    assert child.pid not in family(os.getpid())
    assert cpu_seconds() - before > 0.28


def test_what_others_use_does_not_count():
    assert os.getppid() not in family(os.getpid())
