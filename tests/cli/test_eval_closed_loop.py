"""`rt2 eval closed-loop` prints what it counts, keeps what it played, and refuses bad input."""

import json

import pytest

from rt2_jax.cli.main import main
from rt2_jax.evaluation.closed_loop import read_evaluation
from rt2_jax.sim.record import RecordSettings, record
from rt2_jax.sim.render import RenderSettings

SMALL = ("--skill", "reach", "--episodes", 2, "--size", 2, "--parallel", 1)


def closed_loop(*words):
    return main(["eval", "closed-loop", *map(str, words)])


def test_a_table_of_successes_is_printed(capsys):
    assert closed_loop("expert", *SMALL) == 0
    printed = capsys.readouterr()
    header, line = printed.out.splitlines()
    assert header.startswith("policy  told ")
    assert line.startswith("expert  its own object  reach  2/2 = 100%  15.8% to 100.0%  ")
    assert printed.err.splitlines()[-1].startswith("rt2 eval: 2/2 episodes, 2 successes, ")


def test_results_are_kept_continued_and_compared(capsys, tmp_path):
    out = tmp_path / "expert.jsonl"
    assert closed_loop("expert", *SMALL, "--out", out) == 0
    before = out.read_bytes()
    assert closed_loop("expert", *SMALL, "--out", out) == 0
    assert out.read_bytes() == before
    capsys.readouterr()
    numbers = tmp_path / "numbers.json"
    words = ("--name", "idle", "--against", out, "--json", numbers)
    assert closed_loop("nothing", *SMALL, *words) == 0
    assert "reach, idle against expert: both 0, only the first 0" in capsys.readouterr().out
    data = json.loads(numbers.read_text())
    assert data["policy"] == "idle" and data["skills"]["reach"]["successes"] == 0
    against = data["against"]["skills"]["reach"]
    assert (data["against"]["policy"], against["second_only"], against["p_value"]) == (
        *("expert", 2, 0.5),
    )


def test_the_policy_is_told_another_name_when_asked_for(capsys, tmp_path):
    out = tmp_path / "out.jsonl"
    words = ("--episodes", 1, "--instruction", "swapped", "--out", out)
    words += ("--video", tmp_path / "films")
    assert closed_loop("nothing", *SMALL, *words) == 0
    printed = capsys.readouterr().out
    assert "another's name" in printed and f"film: {tmp_path / 'films'}" in printed
    assert read_evaluation(out).identity["instruction_mode"] == "swapped"
    assert len(list((tmp_path / "films").glob("reach_*_failure.gif"))) == 1


def test_scenes_that_were_recorded_are_refused(capsys, tmp_path):
    settings = RecordSettings(episodes=2, render=RenderSettings(height=2, width=2), policy="random")
    recording = record(settings, tmp_path, jobs=1).directory
    out = tmp_path / "out.jsonl"
    words = ("expert", *SMALL, "--seed", 1, "--out", out)
    assert closed_loop(*words, "--recording", recording) == 2
    message = capsys.readouterr().err
    assert message.startswith("rt2 eval: error: seeds 1 to 1 of this evaluation were recorded")
    assert not out.exists()
    assert closed_loop(*words) == 0
    assert "warning: scenes 1 to 2 may have been recorded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("hero",), "policy: found 'hero', expected ws://HOST:PORT, a checkpoint"),
        (("expert", "--skill", "lift"), "skill: found 'lift', expected one of push, reach"),
        (("expert", "--episodes", 0), "episodes: found 0, expected 1 or more"),
        (("expert", "--parallel", 0), "parallel: found 0, expected 1 or more"),
        (("expert", "--seed", -1), "seed: found -1, expected 0 or more"),
        (("expert", "--instruction", "loud"), "instruction: found 'loud', expected one of"),
        (("expert", "--size", 0), "height: found 0 pixels"),
        (("expert", "--against", "none.jsonl"), "no results file none.jsonl"),
        (("expert", "--recording", "none"), "no folder none; expected a recording"),
        (("expert", "--out", "/dev/null/x"), "[Errno "),
        (("expert", "--json", "/dev/null/x"), "[Errno "),
        (("ws://127.0.0.1:1", "--patience", 0), "ws://127.0.0.1:1"),
    ],
)
def test_bad_input_is_refused_in_one_line(capsys, words, message):
    assert closed_loop(*words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"rt2 eval: error: {message}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
