"""Keeping a control rate."""

import time

import pytest

from rt2_jax.client import ControlRate


def test_ticks_come_at_the_rate():
    rate = ControlRate(50)
    begin = time.monotonic()
    for _ in range(11):
        rate.wait()
    assert 0.19 < time.monotonic() - begin < 0.5
    assert rate.ticks == 11


def test_a_missed_tick_is_counted_and_never_caught_up(caplog):
    rate = ControlRate(10, report_every_s=0.0)
    rate.wait()
    time.sleep(0.4)
    begin = time.monotonic()
    assert not rate.wait()
    assert rate.wait() and rate.wait()
    assert time.monotonic() - begin > 0.19  # two whole periods, although it is four behind
    assert rate.missed == 1
    assert rate.summary()["busy_ms_p95"] > 200
    assert "missed 1 ticks of 10.0 Hz" in caplog.text


def test_a_rate_that_is_none_is_refused():
    with pytest.raises(ValueError, match="rate_hz: found 0, expected a positive number"):
        ControlRate(0)
