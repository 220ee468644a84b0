"""`rt2 bench serve`: what it counts is what happened, with real servers and robots."""

import json

import pytest

from rt2_jax.benchmarks import serve_overhead
from rt2_jax.benchmarks.serve import measure, server_arguments, table
from rt2_jax.benchmarks.serve_robots import Robots
from rt2_jax.benchmarks.served_process import listener, started
from rt2_jax.cli.main import main


@pytest.mark.slow
def test_many_robots_at_a_policy_of_20_ms_miss_nothing_and_share_its_batches(full_check):
    seconds = 60.0 if full_check else 5.0
    with started(server_arguments("fixed:20ms", None, 32)) as (url, pid):
        assert listener(url) == pid
        robots = Robots(url, rate_hz=3, seconds=seconds, together=True)
        found = json.loads(json.dumps(measure(robots, 32, lambda line: None)))
    assert found["ticks"] == found["actions"] == 32 * 3 * seconds and not found["reasons"]
    assert found["missed"] <= 0.001 * found["ticks"]
    assert found["parts_ms"]["model"]["p50"] >= 20, "the policy's own time is a part of its own"
    assert found["mean_batch"] > 4, "robots that tick together are answered together"
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["server"]["rss_last_mb"] < found["server"]["rss_first_mb"] + 50
    assert "32 robots, 3 Hz" in table(found)


def test_a_server_that_is_too_slow_is_slow_at_every_tick_it_held_up():
    with started(server_arguments("fixed:150ms", None, 1)) as (url, _):
        found = measure(Robots(url, rate_hz=10, seconds=1, picture=(8, 8)), 1, print)
        # Each answer takes 150 ms and ticks come every 100 ms: the last one, of ten, waits longest.
        assert found["ticks"] == found["actions"] == 10 and found["missed"] == 10
        assert found["latency_ms"]["max"] > 10 * 150 - 9 * 100 - 1
        assert found["parts_ms"]["model"]["max"] < found["latency_ms"]["max"] / 2
        # With a budget the server refuses what is too old: such ticks are missed, with a reason.
        robots = Robots(url, rate_hz=10, seconds=1, picture=(8, 8), budget_ms=160)
        found = measure(robots, 1, print)
    assert 0 < found["actions"] < 10 and found["missed"] >= 10 - found["actions"]
    assert sum(found["reasons"].values()) == 10 - found["actions"]
    assert all(reason.startswith("DEADLINE") for reason in found["reasons"])


def test_what_cannot_be_measured_is_one_line(capsys):
    for words, line in (
        ([], "give a URL, a checkpoint, or --policy constant"),
        (["--policy", "fixed:20"], "found 'fixed:20', expected 'constant', or 'fixed:20ms'"),
        (["ws://127.0.0.1:9", "--rate", "often"], "expected Hz such as 3, or 'max'"),
        (["ws://127.0.0.1:9", "--picture", "224"], "expected HEIGHTxWIDTH"),
        (["ws://127.0.0.1:9", "--robots", "0"], "robots: found 0, expected more than 0"),
    ):
        assert main(["bench", "serve", *words]) == 2
        assert line in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_server_adds_is_its_answer_less_a_call(capsys):
    assert main(["bench", "serve", "--overhead", "--rounds", "2"]) == 0
    text = capsys.readouterr().out
    assert "added by the server" in text and "aim: at most 1" in text
    found = serve_overhead.measure(serve_overhead.Settings(2, 5, (8, 8)), print)
    assert found["ms"]["served"]["median"] > found["ms"]["in_server"]["median"] > 0
    for each in found["rounds"]:
        assert each["added"] == pytest.approx(each["served"] - each["called"])
