"""docs/lerobot.md runs as it stands; so does a user's file on the real Unitree G1 sample."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from rt2_jax.actions import named_action_space
from rt2_jax.cli.main import main
from rt2_jax.data import LeRobotSteps, lerobot_names
from rt2_jax.data.cache import StepCache
from rt2_jax.data.image import decode_image

from .conftest import encoded, picture
from .lerobot_sets import write_v2, write_v3

PAGE = (Path(__file__).parents[2] / "docs/lerobot.md").read_text()
BLOCKS = re.findall(r"```\w*\n(.*?)```", PAGE, re.DOTALL)
MODULE, GIN, COMMANDS, TO_RLDS = BLOCKS
SHORT = ["--gin.TRAIN_STEPS=2", "--gin.WARMUP_STEPS=1", "--gin.BATCH_SIZE=8"]

G1 = """
from rt2_jax.actions import named_action_space
from rt2_jax.data import LeRobotSteps, lerobot_names, lerobot_task

FOLDER = "g1"
SPACE = named_action_space(
    "g1_upper_body",
    lerobot_names(FOLDER, "action"),
    control_rate_hz=30,
    reference="absolute",
    fields={"k*": {"unit": "rad", "frame": "joint"}, "k*Hand*": {"unit": "1"}},
)
lerobot_task(
    "g1_bottle",
    LeRobotSteps(
        FOLDER,
        {"front": "observation.images.cam_high"},
        SPACE,
        state_fields=lerobot_names(FOLDER, "observation.state"),
        longest_side=96,
    ),
    {"train": [29], "validation": [82]},
    embodiment="unitree_g1",
)
"""


@pytest.fixture
def user(built_in_tasks, registry, tmp_path, monkeypatch):
    """Runs `rt2` in a folder of the user's own, outside the package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path / "data"))
    yield lambda *words: main([str(word) for word in words])
    for name in ("my_tasks", "g1_tasks"):
        sys.modules.pop(name, None)


def photos(folder):
    """Three photos with captions, in COCO's format."""
    (folder / "images").mkdir(parents=True)
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(3)]
    for image in images:
        (folder / "images" / image["file_name"]).write_bytes(encoded(picture(image["id"])))
    captions = [{"id": i, "image_id": i, "caption": f"a cup {i}"} for i in range(3)]
    content = {"images": images, "annotations": captions}
    (folder / "captions.json").write_text(json.dumps(content))


def test_the_example_has_under_40_lines():
    assert len(MODULE.splitlines()) < 40


def test_the_page_runs_as_it_stands(user, tmp_path, capsys):
    write_v2(tmp_path / "data/two_arms")
    photos(tmp_path / "data/photos")
    (tmp_path / "my_tasks.py").write_text(MODULE)
    (tmp_path / "my_run.gin").write_text(GIN)
    for line in COMMANDS.splitlines():
        _, *words = line.split()
        assert user(*words, *(SHORT if words[0] == "train" else [])) == 0
    printed = capsys.readouterr().out
    for text in (
        "prompt 'Q: what action should the robot take to fold the shirt? A:'",
        "fold train: 12 steps of 2 episodes",
        " 50.0%  fold: 12 steps of 2 episodes",
        "done at step 2: runs/fold/checkpoint_2",
    ):
        assert text in printed
    step = StepCache("cache", "fold", "train")[0]
    assert (len(step.images), step.action.shape, step.state.shape) == (2, (15,), (14,))
    _, *words = TO_RLDS.split("#")[0].split()
    assert user(*words) == 0
    assert (tmp_path / "out/fold/1.0.0/features.json").is_file()


@pytest.fixture
def g1(user, shared_data, tmp_path):
    """The sample, below the user's folder of data, and the user's file."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/g1").symlink_to(shared_data / "robot/g1_bottle_lerobot")
    (tmp_path / "g1_tasks.py").write_text(G1)
    return user


def test_a_real_humanoid_with_26_joints_is_shown_as_tokens_and_cached(g1, capsys):
    module = ("--module", "g1_tasks")
    assert g1("data", "tokens", "g1_bottle", *module, "--steps", 1) == 0
    printed = capsys.readouterr().out
    assert "take to Pick up the yellow bottle on the table.? A:" in printed
    assert re.search(r"target '1( \d+){26}': 27 tokens", printed)

    assert g1("data", "cache", "g1_bottle", *module) == 0
    assert "g1_bottle train: 221 steps of 1 episodes" in capsys.readouterr().out
    cache = StepCache("cache", "g1_bottle", "train")
    first, last = cache[0], cache[220]
    assert decode_image(first.images[0]).shape == (72, 96, 3)
    assert (first.action[0], last.action[0]) == (1, 0)
    assert first.episode_id == "episode_000029" and first.state.shape == (26,)
    # A target of a joint is near to where the joint is.
    assert np.abs(first.action[1:15] - first.state[:14]).max() < 0.5


def test_a_real_humanoid_with_26_joints_is_checked_and_inspected(g1, tmp_path, capsys):
    module = ("--module", "g1_tasks")
    status = g1("data", "check", "g1_bottle", *module)
    printed = capsys.readouterr().out
    assert status == 0, printed
    page = tmp_path / "page.html"
    assert g1("data", "inspect", "g1_bottle", *module, "--out", page, "--steps", 3) == 0
    text = page.read_text(encoding="utf-8")
    assert all(field in text for field in ("kLeftShoulderPitch", "terminate"))


@pytest.mark.slow
def test_a_real_humanoid_with_26_joints_is_trained_on(
    g1, tmp_path, capsys, tiny_mixture, full_check
):
    if not full_check:
        pytest.skip("in the full form only: the page's run trains; these steps are cached above")
    for verb in ("cache", "resolve"):
        assert g1("data", verb, "g1_bottle", "--module", "g1_tasks") == 0
    lengths = "TASK_FEATURE_LENGTHS={'inputs': 40, 'targets': 28}"
    options = ("MIXTURE_OR_TASK_NAME='g1_bottle'", "CACHE_DIR='cache'", lengths)
    options = [f"--gin.{option}" for option in (*options, f"MODEL_DIR='{tmp_path / 'run'}'")]
    assert g1("train", f"--gin_file={tiny_mixture.gin}", *options, *SHORT) == 0
    assert f"done at step 2: {tmp_path / 'run'}/checkpoint_2" in capsys.readouterr().out


def test_the_real_sample_in_version_3_gives_the_same_steps(shared_data, tmp_path, monkeypatch):
    sample = shared_data / "robot/g1_bottle_lerobot"
    write_v3(tmp_path / "g1", sample, [29, 30, 82], to_a_file=3, row_group=100)
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    names = lerobot_names("g1", "action")
    space = named_action_space("g1", names, control_rate_hz=30, reference="absolute")
    third = LeRobotSteps(
        "g1", {"front": "observation.images.cam_high"}, space, state_fields=names, longest_side=64
    )
    second = dataclasses.replace(third, folder=str(sample))
    count = 0
    for found, expected in zip(third.read([82]), second.read([82]), strict=True):
        count += 1
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value)
    assert count == 260
