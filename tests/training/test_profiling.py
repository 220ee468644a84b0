"""Traces: of the steps that were asked for, before the run or while it goes."""

import os
import signal
import time

from rt2_jax.training.profiling import REQUEST, Profiler
from rt2_jax.training.watching import Watch


def test_a_window_and_a_signal_each_give_a_trace(tiny, compiled, tmp_path):
    class Signalling(tiny.Batches):
        def __next__(self):
            if self.step == 4:
                os.kill(os.getpid(), signal.SIGUSR1)
            return super().__next__()

    before = signal.getsignal(signal.SIGUSR1)
    watch = Watch(tmp_path, profile_steps=(1, 3))
    compiled.run(tmp_path, 6, Signalling(), watch=watch)  # ends within the second trace
    assert signal.getsignal(signal.SIGUSR1) is before
    assert sorted(each.name for each in (tmp_path / "profile").iterdir()) == ["step_1", "step_5"]
    for trace in (tmp_path / "profile").iterdir():
        (file,) = trace.rglob("*.xplane.pb")
        assert file.stat().st_size > 1000


def test_touching_the_file_asks_once_and_a_file_from_before_does_not(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(Profiler, "_start", lambda self, step, end: started.append((step, end)))
    monkeypatch.setattr("rt2_jax.training.profiling._LOOK_PERIOD", 0.0)
    (tmp_path / REQUEST).touch()
    profiler = Profiler(tmp_path)
    profiler.before_step(1, None)
    assert started == []
    time.sleep(0.02)
    (tmp_path / REQUEST).touch()
    profiler.before_step(7, None)
    assert started == [(7, 12)]
