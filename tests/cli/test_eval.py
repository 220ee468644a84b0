"""`rt2 eval offline` and `rt2 eval pointing`: what they print, write and refuse."""

import json

import pytest

from rt2_jax.cli.main import main


@pytest.fixture(scope="module")
def pictures(small, tmp_path_factory):
    """A COCO folder with one picture of one cube."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    (folder / "images" / "0.png").write_bytes(small.encoded(small.picture(0)))
    image = {"id": 0, "file_name": "0.png", "height": 24, "width": 32}
    box = {"image_id": 0, "category_id": 0, "bbox": [4, 4, 8, 8]}
    data = {"images": [image], "annotations": [box], "categories": [{"id": 0, "name": "cube"}]}
    (folder / "instances.json").write_text(json.dumps(data))
    return folder


def evaluate(*words):
    return main(["eval", *map(str, words)])


def test_offline_prints_a_table_and_writes_json(run, caches, capsys, tmp_path):
    out = tmp_path / "out.json"
    words = ("--cache-dir", caches, "--limit", 3, "--json", out, "--batch-size", 4)
    assert evaluate("offline", run, *words) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("checkpoint_0, split 'validation'\n\narm_pick: 3 steps, ")
    assert "tokens right without terminate: " in printed.out
    assert printed.err.splitlines() == [
        "rt2 eval: arm_pick: 3 answered",
        "rt2 eval: cups: 3 answered",
    ]
    data = json.loads(out.read_text())
    assert [task["task"] for task in data["tasks"]] == ["arm_pick", "cups"]
    fields = data["tasks"][0]["fields"]
    assert (fields[0]["name"], fields[1]["unit"]) == ("terminate", "m")
    assert fields[1]["policy"]["mean_error"] > 0


def test_pointing_prints_a_table_and_writes_json(run, pictures, capsys, tmp_path):
    out = tmp_path / "out.json"
    assert evaluate("pointing", run, "--pictures", pictures, "--json", out) == 0
    printed = capsys.readouterr().out
    assert "in the grown box" in printed and "0.png, 'cube': answered " in printed
    assert json.loads(out.read_text())["rows"][0]["strict"]["trials"] == 1


def test_watch_evaluates_what_is_there_and_goes_on(run, caches, capsys):
    words = ("--limit", 2, "--cache-dir", caches, "--task", "cups", "--batch-size", 2, "--once")
    assert evaluate(*words, "--watch", run) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("step 0  cups/vqa_exact_match 0.0000  exact_answers 0.0000  ")
    assert printed.out.endswith(" s  best\n")
    assert evaluate("watch", run, *words) == 0
    printed = capsys.readouterr()
    assert printed.out == "" and "1 checkpoints are evaluated" in printed.err
    assert [path.name for path in sorted((run / "eval").iterdir())] == [
        *("best.json", "validation", "validation.json", "validation.jsonl")
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("offline", "none"), "no checkpoint and no run: it is no directory"),
        (("offline", "RUN", "--cache-dir", "none"), "run: rt2 data cache arm_pick --split valid"),
        (("offline", "RUN", "--split", "test"), "is not cached"),
        (("offline", "RUN", "--task", "mugs"), "no task 'mugs' in the checkpoint's mixture 'half'"),
        (("offline", "RUN", "--limit", 0), "limit: found 0"),
        (("offline", "RUN", "--batch-size", 0), "batch_sizes: found [0]"),
        (("offline", "RUN", "--json", "no/where.json"), "--json no/where.json: expected a file's"),
        (("offline", "RUN", "--ema"), "has no average of the parameters"),
        (("closed-loop", "RUN", "--ema"), "has no average of the parameters"),
        (("closed-loop", "expert", "--ema"), "chooses the parameters of a checkpoint"),
        (("pointing", "RUN", "--pictures", "none"), "no file none/instances.json"),
        (("--watch", "RUN", "--no-offline"), "nothing to evaluate: neither steps nor a closed"),
        (("--watch", "RUN", "--closed-loop", "jump"), "jump"),
        (("--watch", "RUN", "--until-step", -1), "until_step: found -1, expected a positive"),
    ],
)
def test_bad_input_is_one_line(run, caches, capsys, words, message, monkeypatch):
    monkeypatch.chdir(caches.parent)
    words = [run if word == "RUN" else word for word in words]
    if words[0] == "offline" and "--cache-dir" not in words:
        words += ["--cache-dir", caches]
    assert evaluate(*words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("rt2 eval: error: ") and printed.err.count("\n") == 1
    assert message in printed.err and printed.out == ""
