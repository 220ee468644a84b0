"""A watcher evaluates what is whole, once, in order; what happens to checkpoints is survived."""

import json
import shutil
import threading
import time

import jax
import orbax.checkpoint as ocp
import pytest

from rt2_jax.data.tfrecord import read_records
from rt2_jax.evaluation.checkpoint_scores import (
    BadCheckpointError,
    CheckpointScores,
    OfflineSettings,
)
from rt2_jax.evaluation.watch import WatchConfig, watch
from rt2_jax.evaluation.watch_results import WatchResults
from rt2_jax.inference.weights import abstract_params
from rt2_jax.training.checkpoints import restore_params
from rt2_jax.training.description import RunDescription
from rt2_jax.training.run_length import write_run_length

ONCE = WatchConfig(once=True)


@pytest.fixture
def run(tmp_path):
    """A run's folder, and checkpoints without content."""
    return tmp_path / "run"


def save(run, *steps):
    for step in steps:
        for item in ("state", "rt2"):
            (run / f"checkpoint_{step}" / item).mkdir(parents=True)


def score(path):
    """Best at step 4."""
    step = int(path.name.removeprefix("checkpoint_"))
    return {"mean/token_accuracy": 1 / (1 + abs(step - 4)), "error_m": float(step)}, {"step": step}


def lines(run, name="validation"):
    text = (run / "eval" / f"{name}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def look(run, scores=score, config=ONCE, settings=None, **options):
    """Watches; returns the steps that were told, and the notes."""
    told, notes = [], []
    with WatchResults(run, "validation", settings or {}, **options) as results:
        outcome = watch(
            run, scores, results, config, lambda step, *_: told.append(step), notes.append
        )
    assert outcome.evaluated == len(told)
    return told, notes, outcome


def test_whole_checkpoints_are_evaluated_in_order_and_once(run):
    save(run, 10, 2, 4)
    (run / "checkpoint_12.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (run / "checkpoint_14" / "state").mkdir(parents=True)
    assert look(run)[0] == [2, 4, 10]
    save(run, 6)
    assert look(run)[0] == [6]
    assert [line["step"] for line in lines(run)] == [2, 4, 10, 6]
    assert lines(run)[1].keys() == {"step", "mean/token_accuracy", "error_m", "seconds"}
    assert json.loads((run / "eval" / "validation" / "4.json").read_text()) == {"step": 4}
    events = [list(read_records(file)) for file in (run / "tensorboard/eval").rglob("events*")]
    assert sorted(map(len, events)) == [2 + 1, 2 + 3]


def test_the_best_is_recorded_over_all_starts(run):
    save(run, 2, 4)
    look(run)
    best = {"metric": "mean/token_accuracy", "mode": "max", "step": 4, "value": 1.0}
    assert json.loads((run / "eval" / "best.json").read_text()) == best
    save(run, 6)
    look(run)
    assert json.loads((run / "eval" / "best.json").read_text()) == best
    save(run, 8)
    look(run, best="error_m")
    best = {"metric": "error_m", "mode": "min", "step": 2, "value": 2.0}
    assert json.loads((run / "eval" / "best.json").read_text()) == best
    save(run, 9)
    with pytest.raises(ValueError, match="--best: found 'loss', expected one of error_m, mean/tok"):
        look(run, best="loss")


def test_when_behind_only_the_newest_can_be_taken(run):
    save(run, 2, 4, 6)
    told, notes, _ = look(run, config=WatchConfig(newest=True, once=True))
    assert told == [6] and "leaves out step 2, 4" in notes[0]
    assert look(run, config=WatchConfig(newest=True, once=True))[0] == []


def test_watching_waits_for_the_run_and_ends_with_its_last_step(run):
    def train():
        for step in (2, 4, 6):
            time.sleep(0.05)
            save(run, step)
            write_run_length(run, 6)

    trainer = threading.Thread(target=train)
    trainer.start()
    told, notes, outcome = look(run, config=WatchConfig(poll_s=0.01))
    trainer.join()
    assert told == [2, 4, 6] and outcome.complete
    assert "waits for a checkpoint" in notes[0] and "has not said how long it is" in notes[0]


def test_watching_ends_at_a_given_step_or_when_nothing_comes(run):
    save(run, 2, 5)
    assert look(run, config=WatchConfig(until_step=4))[2].complete
    config = WatchConfig(until_step=9, poll_s=0.01, patience_s=0.05)
    _, notes, outcome = look(run, config=config)
    assert not outcome.complete and "the last one is that of step 9; ends" in notes[-1]


def test_a_damaged_checkpoint_is_tried_again_said_and_left(run):
    save(run, 2, 4)
    tries = []

    def damaged(path):
        if path.name == "checkpoint_2":
            tries.append(path)
            raise BadCheckpointError("the checkpoint is damaged")
        return score(path)

    told, notes, outcome = look(run, damaged, WatchConfig(until_step=4, poll_s=0.01))
    assert told == [4] and outcome.bad == (2,) and len(tries) == 3
    assert notes[-1] == "step 2: the checkpoint is damaged; left out"
    assert look(run)[0] == [2]  # a new start tries it once more


def test_a_checkpoint_that_is_deleted_while_it_is_read_is_passed_over(run):
    save(run, 2, 4)

    def gone(path):
        if path.name == "checkpoint_2":
            shutil.rmtree(path)
            raise BadCheckpointError("no such file")
        return score(path)

    told, notes, outcome = look(run, gone)
    assert told == [4] and outcome.bad == () and outcome.complete
    assert "checkpoint_2 was deleted while it was read" in notes[0]


def test_a_line_cut_short_is_evaluated_again_and_a_damaged_one_is_named(run):
    save(run, 2, 4)
    look(run)
    path = run / "eval" / "validation.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-9])
    assert look(run)[0] == [4] and [line["step"] for line in lines(run)] == [2, 4]
    path.write_text("{}\n" + whole)
    with pytest.raises(ValueError, match="validation.jsonl, line 1: damaged"):
        look(run)


def test_results_are_of_one_process_and_of_one_kind(run):
    save(run, 2)
    look(run, settings={"offline": {"limit": 4}})
    with pytest.raises(ValueError, match="other settings .*offline.limit.*choose another --name"):
        look(run, settings={"offline": {"limit": 5}})
    with (
        WatchResults(run, "other", {}),
        pytest.raises(OSError, match="another process writes it"),
    ):
        WatchResults(run, "other", {})


@pytest.fixture
def other_weights(untrained, tmp_path):
    """A checkpoint of the same run with other weights."""
    description = RunDescription.from_checkpoint(untrained)
    params = restore_params(untrained, abstract_params(description))
    items = {
        "params": ocp.args.PyTreeSave(jax.tree.map(lambda leaf: 1 - leaf, params)),
        "rt2": ocp.args.JsonSave(description.to_json()),
    }
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(tmp_path / "checkpoint_7", ocp.args.Composite(**items))
    return tmp_path / "checkpoint_7"


def test_programs_are_compiled_for_the_first_checkpoint_only(caches, untrained, other_weights):
    scores = CheckpointScores(OfflineSettings(str(caches), tasks=("cups",), limit=2), batch_size=2)
    first, report = scores(untrained)
    programs = dict(scores.compiled.programs)
    second, other_report = scores(other_weights)
    assert len(programs) == 1 and scores.compiled.programs == programs
    names = {"cups/exact_answers", "cups/vqa_exact_match", "mean/exact_answers"}
    assert first.keys() == second.keys() == names
    assert (report["checkpoint"], other_report["checkpoint"]) == ("checkpoint_0", "checkpoint_7")
    # The programs hold no weights: the second checkpoint answers with its own.
    assert report["offline"][0]["examples"] != other_report["offline"][0]["examples"]


def test_a_checkpoint_that_cannot_be_read_is_bad_and_missing_steps_are_not(
    caches, untrained, tmp_path
):
    damaged = tmp_path / untrained.name
    shutil.copytree(untrained, damaged)
    shutil.rmtree(damaged / "state" / "d")
    scores = CheckpointScores(OfflineSettings(str(caches), tasks=("cups",), limit=2))
    with pytest.raises(BadCheckpointError, match="the checkpoint is damaged"):
        scores(damaged)
    scores = CheckpointScores(OfflineSettings(str(tmp_path), tasks=("cups",)))
    with pytest.raises(FileNotFoundError, match="rt2 data cache cups"):
        scores(untrained)
