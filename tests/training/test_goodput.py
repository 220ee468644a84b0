"""The ledger: every second of a run is in one phase, over all of its starts."""

import json
import time

import pytest

from rt2_jax.training.goodput import (
    Ledger,
    duration,
    goodput_table,
    process_start,
    read_ledger,
    wall_seconds,
)
from rt2_jax.training.watching import LEDGER, Watch


def test_the_phases_of_a_start_add_up_to_its_wall_time(tmp_path):
    path, begin = tmp_path / LEDGER, time.time()
    ledger = Ledger(path)
    time.sleep(0.02)
    ledger.enter(0)
    with ledger.phase("data_wait"):
        time.sleep(0.05)
    time.sleep(0.03)
    ledger.write(1)
    wall = time.time() - begin
    (start,) = read_ledger(path)
    assert sum(start.seconds.values()) == pytest.approx(start.end - start.begin, abs=0.01)
    assert start.end - start.begin == pytest.approx(wall, abs=0.02)
    assert start.seconds["init"] == pytest.approx(0.02, abs=0.02)
    assert start.seconds["data_wait"] == pytest.approx(0.05, abs=0.02)
    assert start.seconds["step"] == pytest.approx(0.03, abs=0.02)


def written(path, begin, *lines):
    """Appends the lines of a start: (step, seconds of the phases so far)."""
    with path.open("a") as file:
        for step, seconds in lines:
            phases = {**dict.fromkeys(("init", "lost", "compile"), 0), "checkpoint": 0, **seconds}
            end = begin + sum(phases.values())
            line = {"begin": begin, "time": end, "first_step": 0, "step": step, "seconds": phases}
            file.write(json.dumps(line) + "\n")


def test_steps_that_are_taken_again_are_lost_and_the_pause_is_idle(tmp_path):
    path, begin = tmp_path / LEDGER, time.time() - 100
    written(
        path,
        begin,
        (0, {"init": 5.0, "step": 0.0, "data_wait": 0.0}),
        (30, {"init": 5.0, "compile": 8.0, "step": 20.0, "data_wait": 1.0, "checkpoint": 2.0}),
        (50, {"init": 5.0, "compile": 9.0, "step": 40.0, "data_wait": 4.0, "checkpoint": 2.0}),
    )
    with path.open("a") as file:
        file.write('{"begin": 17')  # the process was killed here
    Ledger(path).enter(30)
    first, second = read_ledger(path)
    assert first.seconds == {
        **{"init": 5.0, "compile": 9.0, "step": 20.0, "data_wait": 1.0, "checkpoint": 2.0},
        "lost": 20.0 + 3.0,
    }
    assert (first.step, second.first_step) == (30, 30)
    seconds = wall_seconds([first, second])
    assert seconds["idle"] == pytest.approx(40, abs=0.5)
    assert sum(seconds.values()) == pytest.approx(second.end - first.begin, abs=0.01)


def test_a_start_before_its_first_save_is_all_lost_but_its_preparation(tmp_path):
    path, begin = tmp_path / LEDGER, time.time() - 100
    written(path, begin, (40, {"init": 5.0, "compile": 8.0, "step": 30.0, "data_wait": 2.0}))
    Ledger(path).enter(0)
    first, _ = read_ledger(path)
    assert first.seconds["lost"] == 32 and first.seconds["compile"] == 8
    assert first.seconds["step"] == 0


def test_a_run_that_failed_and_went_on_accounts_for_every_second(tiny, compiled, tmp_path):
    class Slow(tiny.Batches):
        fails_at = None

        def __next__(self):
            if self.step == self.fails_at:
                raise OSError("no more")
            time.sleep(0.03)
            return super().__next__()

    failing, begin = Slow(), time.time()
    failing.fails_at = 5
    with pytest.raises(OSError, match="no more"):
        compiled.run(tmp_path, 6, failing, watch=Watch(tmp_path))
    time.sleep(0.1)
    compiled.run(tmp_path, 6, Slow(), watch=Watch(tmp_path))
    wall = time.time() - begin
    starts = read_ledger(tmp_path / LEDGER)
    seconds = wall_seconds(starts)
    assert sum(seconds.values()) == pytest.approx(wall, abs=0.1 + 0.05 * wall)
    assert [(start.first_step, start.step) for start in starts] == [(0, 3), (3, 6)]
    # Batches 0 to 2 and 3 to 5 count; 3 and 4 were first taken in vain.
    assert 6 * 0.03 <= seconds["data_wait"] < 6 * 0.03 + 0.1
    assert 2 * 0.03 <= seconds["lost"]
    assert seconds["idle"] >= 0.1


def test_the_table_has_every_phase_that_took_time(tmp_path):
    path = tmp_path / LEDGER
    written(path, 1e9, (9, {"init": 10.0, "compile": 30.0, "step": 150.0, "data_wait": 10.0}))
    table = goodput_table(read_ledger(path)).splitlines()
    assert table[0] == "wall time 3 min 20 s in 1 start:"
    assert [line.split()[0] for line in table[1:]] == ["step", "data_wait", "compile", "init"]
    assert "2 min 30 s   75.0 %" in table[1]


def test_durations_are_short():
    assert [duration(x) for x in (0.25, 61.2, 163_140)] == ["0.2 s", "1 min 01 s", "45 h 19 min"]


def test_a_process_knows_when_it_started():
    assert 0 <= time.time() - process_start() < 24 * 3600
