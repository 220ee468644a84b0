"""Evaluation, inference and export from gin files: the numbers of the plain verbs, and refusals."""

import json

import pytest

from rt2_jax.cli.main import main
from rt2_jax.main import arguments


def gin(name, **values):
    return [f"--gin_file=runs/{name}.gin", *(f"--gin.{key}={each}" for key, each in values.items())]


@pytest.fixture(scope="module")
def evaluated(run, caches, tmp_path_factory):
    """The JSON of an evaluation from gin."""
    out = tmp_path_factory.mktemp("evaluated")
    values = {"CHECKPOINT_PATH": run, "EVAL_OUTPUT_DIR": out / "made", "CACHE_DIR": caches}
    words = gin("eval", **values, BATCH_SIZE=4, EVALUATOR_NUM_EXAMPLES=6)
    assert main(arguments(["--run_mode=eval", *words])) == 0
    return json.loads((out / "made" / "checkpoint_0.validation.json").read_text())


@pytest.mark.slow
def test_an_evaluation_from_gin_has_the_numbers_of_the_plain_verb(run, caches, evaluated, tmp_path):
    out = tmp_path / "out.json"
    words = ["--cache-dir", caches, "--limit", 6, "--batch-size", 4, "--json", out]
    assert main(["eval", "offline", str(run), *map(str, words)]) == 0
    assert json.loads(out.read_text()) == evaluated


@pytest.mark.slow
def test_an_inference_from_gin_writes_what_the_plain_verb_writes(run, caches, tmp_path, capsys):
    values = {"INFER_OUTPUT_DIR": tmp_path / "a", "CHECKPOINT_PATH": run, "CACHE_DIR": caches}
    values |= {"NUM_EXAMPLES": 3, "BATCH_SIZE": 4, "MIXTURE_OR_TASK_NAME": "arm_pick"}
    assert main(arguments(["--run_mode=infer", *gin("infer", **values)])) == 0
    words = ["--out", tmp_path / "b", "--cache-dir", caches, "--limit", 3, "--batch-size", 4]
    assert main(["eval", "infer", str(run), "--task", "arm_pick", *map(str, words)]) == 0
    name = "arm_pick-predict.jsonl-00000-of-00001"
    assert capsys.readouterr().out == f"{tmp_path}/a/{name}\n{tmp_path}/b/{name}\n"
    texts = [(tmp_path / folder / name).read_text() for folder in "ab"]
    assert texts[0] == texts[1] and texts[0].count("\n") == 3


@pytest.mark.slow
def test_an_export_from_gin_is_that_of_the_plain_verb(run, tmp_path, capsys):
    words = gin("export", CHECKPOINT_PATH=run, MODEL_OUTPUT_DIR=tmp_path / "a", DTYPE="bfloat16")
    assert main(arguments(["--run_mode=export", *words, "--dry_run"])) == 0
    assert f"{run}/checkpoint_0 -> {tmp_path}/a/checkpoint_0" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert main(arguments(["--run_mode=export", *words])) == 0
    assert main(["convert", str(run), str(tmp_path / "b"), "--dtype", "bfloat16"]) == 0
    found = [tmp_path / name / "checkpoint_0" / "params" / "_METADATA" for name in "ab"]
    assert found[0].read_text() == found[1].read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "out"), [("eval", "EVAL"), ("infer", "INFER")])
def test_a_dry_run_says_what_would_be_answered_and_writes_nothing(
    run, caches, tmp_path, capsys, name, out
):
    values = {f"{out}_OUTPUT_DIR": tmp_path / "out", "CACHE_DIR": caches, "CHECKPOINT_PATH": run}
    verb = "offline" if name == "eval" else "infer"
    words = [*gin(name, **values), "--gin.MIXTURE_OR_TASK_NAME=half", "--dry_run"]
    assert main(["eval", verb, *words]) == 0
    printed = capsys.readouterr().out
    assert "MIXTURE_OR_TASK_NAME = 'half'" in printed
    assert f"{run}/checkpoint_0: VisionLanguageConfig, mixture 'half'" in printed
    assert "arm_pick, split 'validation': 30 of 30 steps\ncups, split 'validation': " in printed
    assert not list(tmp_path.iterdir())
    words += ["--gin.MIXTURE_OR_TASK_NAME=cups"]
    assert main(["eval", verb, *words]) == 0
    assert "arm_pick, split" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval", "offline"], "missing: CHECKPOINT; give it, or all of it in --gin_file=..."),
        (["eval", "infer", "run"], "missing: --out; give it"),
        (["convert", "run"], "missing: OUT; give it"),
        (["eval", "offline", "run", "--gin.SPLIT=train"], "missing: --gin_file"),
        (["eval", "offline", "run", *gin("eval")], "found checkpoint beside --gin_file"),
        (["eval", "infer", "--limit=3", *gin("infer")], "found limit beside --gin_file"),
        (["convert", "--dtype=float32", *gin("export")], "found dtype beside --gin_file"),
        (["eval", "infer", *gin("infer")], "--gin.CHECKPOINT_PATH=... --gin.INFER_OUTPUT_DIR=..."),
        (["eval", "infer", *gin("infer", MOD="score")], "unknown macro MOD; did you mean MODE?"),
        (["convert", "--gin_file=runs/exprt.gin"], "did you mean runs/export.gin?"),
    ],
)
def test_flags_that_say_too_little_or_twice_are_one_line(capsys, words, message):
    refused(capsys, words, message)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--mode=guess"], "mode: found 'guess', expected one"),
        (["--shard-id=1"], "shard_id: found 1 of 1 shards"),
        (["--limit=0"], "limit: found 0"),
        (["--task=mugs"], "no task 'mugs' in the checkpoint's"),
        (["--split=test"], "is not cached"),
    ],
)
def test_an_inference_that_cannot_be_is_one_line(run, caches, capsys, more, message, tmp_path):
    words = [str(run), "--out", str(tmp_path / "out"), "--cache-dir", str(caches)]
    refused(capsys, ["eval", "infer", *words, *more], message)
    assert not list(tmp_path.iterdir())


def refused(capsys, words, message):
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("rt2 ") and printed.err.count("\n") == 1
    assert message in printed.err and printed.out == ""


def test_t5x_run_modes_are_verbs(capsys):
    assert arguments(["--gin_file=a.gin"]) == ["train", "--gin_file=a.gin"]
    assert arguments(["--gin_file=a", "--run_mode", "infer"]) == ["eval", "infer", "--gin_file=a"]
    for mode, more in (("precompile", "; rt2 train --dry_run says"), ("serve", "")):
        with pytest.raises(SystemExit) as caught:
            arguments([f"--run_mode={mode}"])
        error = capsys.readouterr().err
        assert caught.value.code == 2
        assert f"--run_mode={mode}: expected one of train, eval, infer, export{more}" in error
