"""`rt2 data`: what it prints, writes and refuses."""

import json

import pytest
import seqio

from rt2_jax.cli.main import main

TASKS = """
import numpy as np
import seqio
import tensorflow as tf
from rt2_jax.actions.space import rt2_action_space
from rt2_jax.data import robot_task
from rt2_jax.data.registration import data_path

PNG = {png!r}
SPACE = rt2_action_space(
    "mine", translation_bound_m=0.1, rotation_bound_rad=0.1, gripper_polarity="high_is_open",
    control_rate_hz=3,
)


def steps(split, shuffle_files, seed=None):
    return tf.data.Dataset.range(6).map(lambda i: dict(
        images=[PNG], text="wave", action=tf.ones([8]) * 0.05 * [20, 1, 1, 1, 1, 1, 1, 1],
        episode=i // 3, step=i % 3, episode_id="e",
    ))


robot_task(
    "my_robot", seqio.FunctionDataSource(steps, splits=["train"]), embodiment="mine",
    action_space=SPACE, views=["front"], read_from="mine",
)
seqio.MixtureRegistry.add("my_mixture", [("my_robot", 1.0)])
"""


@pytest.fixture
def rt2_data(tmp_path, monkeypatch):
    """Runs `rt2 data` in a folder with a module of the user's own tasks."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    (tmp_path / "my_tasks.py").write_text(TASKS.format(png=file.getvalue()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RT2_DATA_DIR", "")  # put back after the test, since --data-dir sets it
    monkeypatch.delenv("RT2_DATA_DIR")
    yield lambda *words: main(["data", *map(str, words)])
    for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
        for name in ("my_robot", "my_mixture"):
            if name in registry.names():
                registry.remove(name)
    import sys

    sys.modules.pop("my_tasks", None)


def test_list_tells_tasks_mixtures_and_where_data_would_be_read(rt2_data, capsys, tmp_path):
    assert rt2_data("list", "--data-dir", tmp_path / "d", "--module", "my_tasks") == 0
    printed = capsys.readouterr().out
    assert "not on this disk, would be read from" in printed
    assert str(tmp_path / "d/rt2_tabletop/2.0.0") in printed
    assert "robot widowx, action space bridge (8 fields, 5 Hz, bounds from statistics)" in printed
    assert "task my_robot: splits train" in printed
    assert "mixture my_mixture: my_robot 100.0%" in printed


def test_tokens_shows_prompt_and_action_as_the_model_sees_them(rt2_data, capsys):
    assert rt2_data("tokens", "my_mixture", "--module", "my_tasks", "--steps", 1) == 0
    printed = capsys.readouterr().out
    assert "prompt 'Q: what action should the robot take to wave? A:'" in printed
    assert "target '1 192 192 192 192 192 192 12': 8 tokens" in printed


def test_a_task_of_ones_own_is_cached_and_resolved(rt2_data, capsys, tmp_path):
    options = ("my_mixture", "--module", "my_tasks", "--cache-dir", "caches")
    assert rt2_data("resolve", *options) == 2
    assert "task 'my_robot' is not cached" in capsys.readouterr().err
    assert rt2_data("cache", *options, "--shard_steps", 4) == 0
    assert "my_robot train: 6 steps of 2 episodes" in capsys.readouterr().out
    assert rt2_data("resolve", *options) == 0
    assert "100.0%  my_robot: 6 steps of 2 episodes" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "caches/my_mixture.train.json").read_text())
    assert manifest["tasks"][0]["steps"] == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cache", "bridge_sampel"), "no task or mixture 'bridge_sampel' .*bridge_sample"),
        (("list", "--module", "no_tasks"), "--module no_tasks: no such module"),
        (("cache", "bridge", "--data-dir", "none"), "no RLDS data set at none/bridge_dataset"),
        (("cache", "bridge", "--split", "test"), "task 'bridge' has no split 'test'"),
    ],
)
def test_bad_input_is_one_line(rt2_data, capsys, words, message):
    import re

    assert rt2_data(*words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert re.match(f"rt2 data: error: .*{message}", line)
