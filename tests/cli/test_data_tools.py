"""`rt2 data show`, `inspect`, `stats`, `check`: output, JSON and exit statuses."""

import json

import pytest

from .test_data import rt2_data

__all__ = ["rt2_data"]  # a fixture
MINE = ("my_mixture", "--module", "my_tasks")


@pytest.fixture
def cached(rt2_data, capsys):
    assert rt2_data("cache", *MINE) == 0
    capsys.readouterr()
    return rt2_data


def test_show_prints_shares_tokens_and_epochs(cached, capsys):
    assert cached("show", *MINE, "--steps", 30, "--batch-size", 2) == 0
    printed = capsys.readouterr().out
    assert "robots are 100.0% of the examples and 100.0% of the loss tokens" in printed
    assert "epochs: over 30 steps of 2 examples" in printed and "10.00" in printed
    assert cached("show", *MINE, "--json", "--steps", 30, "--batch-size", 2) == 0
    assert json.loads(capsys.readouterr().out)["tasks"][0]["epochs"] == 10


def test_show_takes_a_run_from_its_gin_file_and_flags_win(cached, capsys):
    run = ("--gin-file", "runs/bridge_sample.gin", "--json")
    assert cached("show", *MINE, *run, "--steps", 3) == 0
    planned = json.loads(capsys.readouterr().out)["run"]
    assert (planned["steps"], planned["batch_size"]) == (3, 16)
    assert (planned["encoder_length"], planned["decoder_length"]) == (32, 28)
    assert planned["source_weights"]["coco_sample_vqa"] == 0.5


def test_show_needs_caches(rt2_data, capsys):
    assert rt2_data("show", *MINE) == 2
    assert "task 'my_robot' is not cached" in capsys.readouterr().err


def test_inspect_writes_a_page_with_and_without_a_cache(rt2_data, capsys, tmp_path):
    assert rt2_data("inspect", *MINE, "--out", "before.html") == 0
    assert "before.html: 1 tasks" in capsys.readouterr().out
    assert "not cached" in (tmp_path / "before.html").read_text()
    assert rt2_data("cache", *MINE) == 0
    assert rt2_data("inspect", *MINE, "--out", "after.html") == 0
    assert "6 steps, 2 episodes (cache)" in (tmp_path / "after.html").read_text()


def test_stats_are_written_and_compared(rt2_data, capsys):
    assert rt2_data("stats", *MINE, "--out", "mine.json") == 0
    assert "mine, mine: 6 actions" in capsys.readouterr().out
    assert rt2_data("stats", *MINE, "--against", "mine.json") == 0
    assert "0 of 14 quantiles differ" in capsys.readouterr().out
    data = json.loads(open("mine.json").read())
    data["statistics"][0]["q01"][1] -= 0.02
    data["statistics"][0]["min"][1] -= 0.02
    open("other.json", "w").write(json.dumps(data))
    assert rt2_data("stats", *MINE, "--against", "other.json") == 1
    printed = capsys.readouterr().out
    assert "mine, mine: position_delta_x  q01" in printed and "1 of 14 quantiles" in printed
    assert rt2_data("stats", *MINE, "--against", "other.json", "--tolerance", 3) == 0
    capsys.readouterr()
    assert rt2_data("stats", *MINE, "--against", "other.json", "--json") == 1
    assert json.loads(capsys.readouterr().out)["differences"]


def test_check_ends_with_1_on_errors_and_names_them(rt2_data, capsys):
    # The tests' task holds one black picture and the same action in all steps.
    assert rt2_data("check", *MINE) == 1
    printed = capsys.readouterr().out
    assert "my_robot train: 2 episodes, 6 steps" in printed
    assert "error: black-picture: view front: all of 6 pictures are all black" in printed
    assert "warning: dead-field: action position_delta_x: always 0.05" in printed
    assert rt2_data("check", *MINE, "--json") == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert report["task"] == "my_robot" and report["read"] == {"train": [2, 6]}
    assert {f["severity"] for f in report["findings"]} == {"error", "warning"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "bridge", "--data-dir", "none"), "no RLDS data set at none/bridge_dataset"),
        (("check", *MINE, "--split", "test"), "task 'my_robot' has no split 'test'"),
        (("check", *MINE, "--episodes", 0), "--episodes: found 0, expected 1 or more"),
        (("inspect", *MINE, "--out", "no/report.html"), "there is no folder no"),
        (("inspect", *MINE, "--steps", 0), "found --steps 0"),
        (("stats", "coco_captions"), "'coco_captions' has no robot task"),
        (("stats", *MINE, "--against", "none.json"), "none.json"),
        (("stats", *MINE, "--tolerance", -1), "--tolerance: found -1"),
        (("show", *MINE, "--batch-size", 0), "batch_size: found 0"),
    ],
)
def test_bad_input_is_one_line_and_status_2(rt2_data, capsys, words, message):
    assert rt2_data(*words) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("rt2 data: error: ") and message in line
