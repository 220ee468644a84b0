"""Several processes that train as one: they stop together, or end by themselves, and say why."""

import signal

import pytest

pytestmark = pytest.mark.slow

LONG = ("--gin.TRAIN_STEPS=100000", "--gin.SAVE_PERIOD=100000", "--host_timeout=6")


def until_step(process, step):
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            return
    raise AssertionError(f"ended with {process.wait()} before step {step}")


def test_one_that_gets_sigterm_stops_all_at_the_same_step_saved(together, tmp_path):
    first, second = together(tmp_path / "run", *LONG)
    until_step(first, 3)
    second.send_signal(signal.SIGTERM)
    said, other = (process.communicate(timeout=120)[0] for process in (first, second))
    assert (first.returncode, second.returncode) == (143, 143), said + other
    (saved,) = (tmp_path / "run").glob("checkpoint_*")
    assert f"stopped at step {saved.name.removeprefix('checkpoint_')}" in said


def test_when_the_coordinator_is_killed_the_other_ends_by_itself_and_says_to_start_again(
    together, tmp_path
):
    first, second = together(tmp_path / "run", *LONG)
    until_step(first, 3)
    first.kill()
    output = second.communicate(timeout=60)[0]
    assert second.returncode == 75, output
    last = output.splitlines()[-1]
    assert last.startswith("rt2 train: error: ") and "start all" in last, output


def test_hosts_that_would_not_do_the_same_train_nothing_and_say_which_and_what(together, tmp_path):
    own = {1: ["--gin.LEARNING_RATE=0.5", "--gin.FROZEN=('vision/.*',)"]}
    processes = together(tmp_path / "run", "--gin.TRAIN_STEPS=4", own=own)
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], outputs
    for output in outputs:
        assert "host 1 (" in output
        assert "has another RunConfig.frozen, RunConfig.learning_rate\n" in output
        assert "host 0 (" not in output
    assert not list(tmp_path.glob("run/checkpoint_*"))
