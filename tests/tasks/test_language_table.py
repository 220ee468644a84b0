"""Language-Table: the action as integers, and four questions about frames of the same episodes."""

import io
import runpy
from pathlib import Path

import numpy as np
import pytest
import seqio
from PIL import Image

from rt2_jax.actions.binning import IntegerGrid
from rt2_jax.actions.statistics import resolve_bounds
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.image import decode_image
from rt2_jax.data.registration import step_format
from rt2_jax.data.step_reader import read_steps
from rt2_jax.tasks import language_table

EPISODES = runpy.run_path(str(Path(__file__).with_name("oxe_episodes.py")))
COUNT, LENGTH = 24, 9


def grey(level):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Episodes whose frames show their step: step t is grey of level 20 t."""
    root = tmp_path_factory.mktemp("language_table")
    steps = EPISODES["raw_steps"]("language_table", {"views": {}, "action": []}, LENGTH)
    steps["observation/rgb"] = np.array([grey(20 * t) for t in range(LENGTH)], object)
    steps["action"] *= 0.1
    steps["observation/effector_translation"] = np.float32(
        [[0.3 + 0.01 * t, -0.02 * t] for t in range(LENGTH)]
    )
    EPISODES["write_rlds"](root / "language_table/0.0.1", [steps] * COUNT)
    return root, steps


@pytest.fixture(autouse=True)
def folder(data, monkeypatch):
    monkeypatch.setenv("RT2_DATA_DIR", str(data[0]))


def read(task):
    return list(read_steps(seqio.TaskRegistry.get(task), "train"))


def frames(step):
    """The two steps that a picture shows, the left one first."""
    picture = decode_image(step.images[0]).astype(float)
    assert picture.shape == (8, 16, 3)
    return [round(half.mean() / 20) for half in (picture[:, :8], picture[:, 8:])]


def test_actions_are_written_as_two_integers_and_come_back(data):
    steps = read("language_table_action")
    form = step_format(seqio.TaskRegistry.get("language_table_action"))
    space = form.info.robot.action_space
    codec = IntegerGrid().bind(space, resolve_bounds(space))
    assert len(steps) % LENGTH == 0 and steps[0].text == EPISODES["INSTRUCTION"]
    for step, raw in zip(steps[:LENGTH], data[1]["action"], strict=True):
        step.check(form.info)
        text = codec.to_text(codec.encode(step.action[None]).levels)
        assert all(-10 <= int(word) <= 10 for word in text.split(" "))
        back = codec.decode(codec.from_text(text))[0]
        np.testing.assert_allclose(back, np.clip(raw, -0.1, 0.1), atol=0.005 + 1e-6)


def test_the_instruction_is_asked_from_the_first_and_the_last_frame():
    for step in read("language_table_instruction"):
        assert frames(step) == [0, LENGTH - 1]
        assert step.target == EPISODES["INSTRUCTION"]


def test_the_arms_position_is_that_of_the_second_frame_in_centimetres():
    seen = set()
    for step in read("language_table_arm_position"):
        first, second = frames(step)
        assert second == first + 1
        assert step.target == f"x {30 + second} y {-2 * second}"
        seen.add(second)
    assert len(seen) >= 4, "frames are drawn from the whole episode"


def test_timesteps_are_those_between_the_frames():
    found = [(frames(step), step.target) for step in read("language_table_timesteps")]
    assert all(str(b - a) == target and b > a for (a, b), target in found)
    assert len({target for _, target in found}) >= 4


def test_success_is_asked_of_ends_and_of_first_halves():
    answers = []
    for step in read("language_table_success"):
        first, second = frames(step)
        assert first == 0 and step.text == EPISODES["INSTRUCTION"]
        assert second == LENGTH - 1 if step.target == "yes" else second < LENGTH // 2
        answers.append(step.target)
    assert 0.2 < answers.count("yes") / len(answers) < 0.8


def test_questions_are_the_same_at_every_reading_and_can_be_cached(tmp_path):
    task = seqio.TaskRegistry.get("language_table_timesteps")
    info = cache_task(task, tmp_path)
    assert info.steps == info.episodes == len(read("language_table_timesteps"))
    assert [s.images for s in read("language_table_timesteps")] == [
        s.images for s in read("language_table_timesteps")
    ]


def test_every_data_set_has_the_papers_five_tasks():
    kinds = ("action", *language_table.QUESTIONS)
    assert len(kinds) == 5
    for name in language_table.DATA_SETS:
        for kind in kinds:
            form = step_format(seqio.TaskRegistry.get(f"{name}_{kind}"))
            assert form.read_from == f"{name}/0.0.1"
            assert (form.info.robot is not None) == (kind == "action")
    real, simulated = (
        step_format(seqio.TaskRegistry.get(f"{name}_action")).info.robot
        for name in language_table.DATA_SETS[:2]
    )
    assert real.action_space == simulated.action_space and real.embodiment != simulated.embodiment
