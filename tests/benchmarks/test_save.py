"""`rt2 bench save` in small: what it reports, not how fast it is."""

import json

import pytest

from rt2_jax.benchmarks.save import Settings, measure, table


def test_every_figure_is_of_this_run_and_can_be_written():
    found = measure(Settings(rounds=1, steps=2, megabytes=9), lambda line: None)
    assert found["state_bytes"] >= 9_000_000
    assert found["seconds_held_up_by_a_save"] > 0 and found["mean_ratio"] > 0
    assert "aim: at most 1.2" in table(json.loads(json.dumps(found)))


def test_nothing_to_measure_is_refused():
    with pytest.raises(ValueError, match="steps: found 0, expected 1 or more"):
        Settings(steps=0)
