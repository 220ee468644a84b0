"""The watchdog: a run that hangs ends, says where it hung, and can be started again."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from rt2_jax.training.exits import RETRYABLE
from rt2_jax.training.loop import LoopConfig
from rt2_jax.training.watchdog import Watchdog

SCRIPT = """
import pathlib, sys, time
from rt2_jax.training.watchdog import Watchdog

def wait_for_a_batch_that_never_comes():
    time.sleep(60)

def count(steps):
    for _ in range(steps):
        watchdog.step_ended()
        time.sleep(0.01)

with Watchdog(0.3, pathlib.Path(sys.argv[1])) as watchdog:
    watchdog.be_patient(False)
    count(5)
    {body}
print("ended by itself")
"""


def start(tmp_path, body):
    script = textwrap.dedent(SCRIPT).format(body=body)
    return subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "stacks.txt"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_hang_ends_the_process_with_the_stacks_and_a_status_that_says_try_again(tmp_path):
    with start(tmp_path, "wait_for_a_batch_that_never_comes()") as process:
        output, error = process.communicate(timeout=50)
    assert (process.returncode, output) == (RETRYABLE, "") and RETRYABLE == 75
    for text in (error, (tmp_path / "stacks.txt").read_text()):
        assert "error: no step ended for" in error
        assert "LoopConfig.hang_timeout is 0.3 s; 5 steps ended before" in text
        assert "in wait_for_a_batch_that_never_comes" in text


def test_a_process_that_was_stopped_and_goes_on_did_not_hang(tmp_path):
    with start(tmp_path, "print('now', flush=True); time.sleep(0.2)") as process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.6)
        process.send_signal(signal.SIGCONT)
        output, error = process.communicate(timeout=50)
    assert (process.returncode, output, error) == (0, "ended by itself\n", "")


def test_compilation_saves_and_slow_steps_have_more_time():
    watchdog = Watchdog(10)
    assert watchdog.limit == 60
    watchdog.be_patient(False)
    assert watchdog.limit == 60  # no step has ended yet
    watchdog.step_ended()
    assert watchdog.limit == 10
    watchdog.be_patient(True)
    assert watchdog.limit == 60
    watchdog.be_patient(False)
    watchdog._durations.extend([1.0, 2.0, 30.0])
    assert watchdog.limit == 40


def test_a_negative_timeout_is_refused():
    with pytest.raises(ValueError, match="LoopConfig.hang_timeout: found -1, expected 0 or more"):
        LoopConfig(1, hang_timeout=-1)


HUNG_RUN = """
import pathlib, runpy, sys, threading
import jax
jax.config.update("jax_disable_most_optimizations", True)
tiny = runpy.run_path(sys.argv[1])
from rt2_jax.training.watching import Watch

class Hung(tiny["Batches"]):
    def __next__(self):
        if self.step == 5:
            threading.Event().wait()
        return super().__next__()

directory = pathlib.Path(sys.argv[2])
tiny["Compiled"]().run(directory, 10, Hung(), watch=Watch(directory, hang_timeout=5.0))
"""


@pytest.mark.slow
def test_a_run_whose_data_hang_ends_and_keeps_what_was_saved(tiny, compiled, tmp_path):
    compiled.run(tmp_path / "before", 1)  # the process finds the programs and compiles none
    command = [sys.executable, "-c", HUNG_RUN, tiny.path, tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == RETRYABLE, ended.stderr
    stacks = (tmp_path / "stacks_process_0.txt").read_text()
    assert "in __next__" in stacks and "loop.py" in stacks
    assert int(compiled.run(tmp_path, 6).state.step) == 6
    assert (tmp_path / "checkpoint_3").is_dir()
