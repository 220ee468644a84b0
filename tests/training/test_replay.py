"""Steps that are skipped are written down, and `--replay` says which example did it."""

import dataclasses
import json

import numpy as np
import pytest

from rt2_jax.training.loop import NotFiniteError
from rt2_jax.training.replay import replay
from rt2_jax.training.run import execute, prepare
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
            found["decoder_loss_weights"] = weights * np.float32(np.inf)
        return found


def spoil(run, index=7):
    arm, *others = run.examples
    assert arm.name == "tiny_arm"
    return dataclasses.replace(run, examples=[Spoiled(arm, index), *others])


def lines(directory):
    return [json.loads(line) for line in (directory / SKIPPED_STEPS).read_text().splitlines()]


def test_a_nan_batch_is_skipped_written_down_and_its_example_found_by_replay(run_config, tmp_path):
    run = spoil(prepare(run_config()))
    outcome = execute(run)
    assert int(outcome.state.step) == 6 and not outcome.stopped
    assert all(np.isfinite(leaf).all() for leaf in _leaves(outcome.state.params))
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
    again = replay(run, found[-1]["step"])
    assert not again.finite and again.sources["tiny_arm"][1] == 1
    assert again.sources["tiny_web"][1] == 0
    (example,) = again.examples
    assert example.identity == {
        "task": "tiny_arm",
        "example": 7,
        "episode": 1,
        "episode_id": "demo-1",
        "step": 2,
        "text": "pick object 1",
    }
    assert set(example.features) == {"decoder_loss_weights"}
    assert len(again.gradients) > again.parameters / 2
    for words in ("the step is skipped", "episode_id 'demo-1', step 2", "decoder_loss_weights"):
        assert words in again.text()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def _leaves(tree):
    import jax

    return jax.tree.leaves(jax.device_get(tree))


@pytest.mark.slow
def test_a_loss_weight_that_overflows_ends_the_run_and_replay_on_the_command_line_says_why(
    run_config, tiny_mixture, tmp_path, capsys
):
    from rt2_jax.cli.main import main

    sound = run_config()
    execute(prepare(sound))
    bad = dataclasses.replace(
        sound,
        source_weights={"tiny_arm": 1e38},
        loop=dataclasses.replace(sound.loop, total_steps=20, max_skipped_in_a_row=3),
    )
    with pytest.raises(NotFiniteError, match=r"batches 6 to 8; .*rt2 train ... --replay 9"):
        execute(prepare(bad))
    assert [line["step"] for line in lines(tmp_path / "run")] == [7, 8, 9]
    flags = [
        *("train", "--gin_file", str(tiny_mixture.gin), f"--gin.MODEL_DIR={tmp_path / 'run'}"),
        "--gin.RunConfig.source_weights={'tiny_arm': 1e38}",
    ]
    assert main([*flags, "--replay=8"]) == 0
    said = capsys.readouterr().out
    assert "step 8 (batch 7) with " in said and "checkpoint_6, 1 steps before it" in said
    assert "source tiny_arm: 4 examples, the loss of 4 is not finite" in said
    assert "source tiny_web: 4 examples, the loss of 0 is not finite" in said
    assert main([*flags, "--replay=8", "--replay-exactly"]) == 0
    assert "steps before it" not in capsys.readouterr().out
    assert main([*flags[:-1], "--replay=5"]) == 0
    said = capsys.readouterr().out
    assert "finite, the step would be taken" in said and "--replay-exactly" in said
    assert main([*flags, "--replay=0"]) == 2
    assert "found 0, expected a step from 1" in capsys.readouterr().err


def test_a_restart_drops_the_lines_of_steps_that_are_taken_again(tmp_path):
    (tmp_path / SKIPPED_STEPS).write_text('{"step": 3, "batch": 2}\n{"step": 8, "batch": 7}\n')
    SkippedSteps(tmp_path, 5, ("robot",))
    assert lines(tmp_path) == [{"step": 3, "batch": 2}]
