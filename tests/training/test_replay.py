"""Steps that are skipped are written down, and `--replay` says which example did it."""

import dataclasses
import json
import shutil
import types

import jax
import numpy as np
import pytest

from rt2_jax.training.execution import execute
from rt2_jax.training.replay import _alone, replay
from rt2_jax.training.skipped import SKIPPED_STEPS, SkippedSteps


class Spoiled:
    """A task's examples, of which one has a loss weight that overflowed."""

    def __init__(self, examples, index):
        self._examples, self._index = examples, index

    def __getattr__(self, name):
        return getattr(self._examples, name)

    def __len__(self):
        return len(self._examples)

    def example(self, index, rng=None):
        found = self._examples.example(index, rng)
        if index == self._index:
            weights = found["decoder_loss_weights"].astype(np.float32)
            found["decoder_loss_weights"] = np.where(weights > 0, np.float32(np.inf), weights)
        return found


def spoil(run, index=7):
    arm, *others = run.examples
    assert arm.name == "tiny_arm"
    return dataclasses.replace(run, examples=[Spoiled(arm, index), *others])


def lines(directory):
    return [json.loads(line) for line in (directory / SKIPPED_STEPS).read_text().splitlines()]


@pytest.fixture
def run(quick_run):
    """A run of the mixture with `tiny.Table`, one example of which is spoiled."""
    return spoil(quick_run())


def test_a_nan_batch_is_skipped_written_down_and_its_example_found_by_replay(run, tmp_path):
    outcome = execute(run)
    assert int(outcome.state.step) == 6 and not outcome.stopped
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outcome.state.params))
    batches = {
        step: [index for source, index in run.batches().examples_of(step) if source == 0]
        for step in range(6)
    }
    expected = [step for step, indices in batches.items() if 7 in indices]
    found = lines(tmp_path / "run")
    assert [line["batch"] for line in found] == expected and 0 < len(expected) < 6
    assert [line["step"] for line in found] == [step + 1 for step in expected]
    for line in found:
        assert line["sources"]["tiny_arm"]["loss"] in ("nan", "inf")
        assert isinstance(line["sources"]["tiny_web"]["loss"], float)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    bad = replay(run, found[-1]["step"])
    assert not bad.finite and bad.sources["tiny_arm"][1] == 1 and bad.sources["tiny_web"][1] == 0
    (example,) = bad.examples
    assert example.identity == {
        "task": "tiny_arm",
        "example": 7,
        "episode": 1,
        "episode_id": "demo-1",
        "step": 2,
        "text": "pick object 1",
    }
    assert set(example.features) == {"decoder_loss_weights"}
    assert set(bad.gradients) == {"vision/bias", "decoder/bias"} and bad.parameters == 2
    for words in ("the step is skipped", "episode_id 'demo-1', step 2", "decoder_loss_weights"):
        assert words in bad.text()
    # The loss that the run logged, of a step without a checkpoint just before it.
    logged = [
        json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    (step,) = [each for each in (2, 3, 5, 6) if each - 1 not in expected][-1:]
    near, exact = replay(run, step), replay(run, step, exactly=True)
    assert near.finite and "--replay-exactly" in near.text() and near.loss != exact.loss
    assert exact.exact and not exact.examples
    assert exact.loss == pytest.approx(logged[step - 1]["loss"], rel=1e-6)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_an_example_whose_gradient_alone_is_not_finite_is_found_by_halves():
    looked = []

    def look(rows):
        looked.append(rows)
        return types.SimpleNamespace(norm=np.nan if {3, 12} & set(rows) else 1.0)

    assert _alone(look, 16) == [3, 12]
    assert len(looked) < 16


@pytest.mark.slow
def test_replay_on_the_command_line_says_which_source_has_a_loss_weight_that_overflows(
    trained, tiny_mixture, tmp_path, capsys
):
    from rt2_jax.cli.main import main

    directory = shutil.copytree(trained, tmp_path / "run")
    flags = [
        *("train", "--gin_file", str(tiny_mixture.gin), f"--gin.MODEL_DIR={directory}"),
        "--gin.RunConfig.source_weights={'tiny_arm': 1e38}",
    ]
    assert main([*flags, "--replay=5"]) == 0
    said = capsys.readouterr().out
    assert "step 5 (batch 4) with " in said and "checkpoint_3, 1 steps before it" in said
    assert "source tiny_arm: 4 examples, the loss of 4 is not finite" in said
    assert "source tiny_web: 4 examples, the loss of 0 is not finite" in said
    assert "episode_id 'demo-" in said and "parameters are not finite" in said
    assert main([*flags, "--replay=0"]) == 2
    assert "found 0, expected a step from 1" in capsys.readouterr().err
    assert main([*flags, "--replay-exactly"]) == 2
    assert "--replay-exactly goes with --replay STEP" in capsys.readouterr().err


def test_a_restart_drops_the_lines_of_steps_that_are_taken_again(tmp_path):
    (tmp_path / SKIPPED_STEPS).write_text('{"step": 3, "batch": 2}\n{"step": 8, "batch": 7}\n')
    SkippedSteps(tmp_path, 5, ("robot",))
    assert lines(tmp_path) == [{"step": 3, "batch": 2}]
