"""The registered tasks: each is declared in full, and those with sample data can be trained on."""

import collections
import json
import re

import numpy as np
import pytest
import seqio
import tensorflow as tf

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.image import decode_image
from rt2_jax.data.places import parse_places
from rt2_jax.data.registration import step_format
from rt2_jax.data.resolve import find_tasks, resolve_mixture
from rt2_jax.data.state_text import StateRanges, StateText
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary
from rt2_jax.sim.pictures import PictureSettings, draw_pictures
from rt2_jax.sim.record import RecordSettings, record
from rt2_jax.tasks import mixtures, tabletop

ROBOT_MIXTURES = ("bridge_mix", "bridge_sample_mix", "tabletop_photos_mix", "tabletop_mix")
MIXTURES = (
    "rt2_tabletop",
    *ROBOT_MIXTURES,
    "rt2_pictures",
    "rt2_pictures_fine",
    "coco_sample_places",
)
PLAN = {
    "reach": r"(\w+ \w+) \d+ \d+ (?:over|down|stop)(?: \d+){4}",
    "push": r"(\w+ \w+) \d+ \d+ (\w+ \w+) \d+ \d+ (?:over|down|push|up|stop)(?: \d+){4}",
}
TASKS = sorted({task.name for mixture in MIXTURES for task, _ in find_tasks(mixture)})


@pytest.fixture
def sample(shared_data, monkeypatch):
    monkeypatch.setenv("RT2_DATA_DIR", str(shared_data))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_declared_whether_or_not_its_data_are_here(name, monkeypatch, tmp_path):
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    task = seqio.TaskRegistry.get(name)
    form = step_format(task)
    assert form.info.name == name and form.read_from
    with pytest.raises(FileNotFoundError, match="RT2_DATA_DIR"):
        next(read_steps(task, "train"))


@pytest.mark.parametrize("name", ROBOT_MIXTURES)
def test_half_of_a_co_fine_tuning_mixture_are_robot_steps(name):
    robot = sum(share for task, share in find_tasks(name) if step_format(task).info.robot)
    assert robot == mixtures.ROBOT_SHARE


def test_a_recording_holds_a_task_for_each_skill(tmp_path, monkeypatch):
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    record(RecordSettings(episodes=2), tmp_path, jobs=1)
    for skill in ("reach", "push"):
        steps = list(read_steps(seqio.TaskRegistry.get(f"rt2_tabletop_{skill}"), "train"))
        assert {step.episode_id.split("-")[0] for step in steps} == {skill}
        assert [step.action[0] for step in steps] == [1] * (len(steps) - 1) + [0]
        for step in steps:
            words = re.fullmatch(PLAN[skill], step.target)
            assert words, step.target
            assert all(name in step.text for name in words.groups()), (
                "the plan names what it was told"
            )
        assert steps[-1].target.split()[-5:][::4] == ["stop", "64"], "it ends where it is"


def test_a_plan_and_the_state_before_a_prompt_name_places_by_the_same_numbers():
    robot = step_format(seqio.TaskRegistry.get("rt2_tabletop_push")).info.robot
    draw = np.random.default_rng(0)
    states = draw.uniform(-0.4, 0.4, (50, 7)).astype(np.float32)
    writer = StateText(StateRanges.compute(robot, states), ("tip_x", "tip_y"), 64)
    for state in states:
        points = np.stack([state[:3], states[0, :3], state[:3]])
        tip = state[:3] - (0.5, 0.42, 0.0)  # a whole workspace away
        plan = tabletop.plan_text(tf.constant(["red cube", "", "over"]), points, tip, 64)
        place = writer.write(state, "step").removeprefix("State: ").removesuffix(".")
        assert plan.numpy().decode() == f"red cube {place} over {place} 128 128"


def test_the_real_bridge_episodes_use_their_bins(sample, tmp_path):
    info = cache_task(seqio.TaskRegistry.get("bridge_sample"), tmp_path)
    assert (info.steps, info.episodes) == (200, 20)
    manifest = resolve_mixture("bridge_sample", tmp_path)
    task = manifest.tasks[0].info
    codec = UniformBins().bind(task.robot.action_space, manifest.bounds(task))
    actions = np.stack([s.action for s in read_steps(find_tasks("bridge_sample")[0][0], "train")])
    levels = codec.encode(actions[:, None]).levels[:, 0]
    assert all(len(np.unique(levels[:, field])) >= 80 for field in (1, 2, 3))


def test_the_held_out_bridge_episodes_are_others(sample):
    task = seqio.TaskRegistry.get("bridge_sample")
    first, second = ({s.action.tobytes() for s in read_steps(task, x)} for x in task.splits)
    assert len(first) > len(second) > 40 and not first & second


def test_the_sample_photos_have_captions_and_answers(sample):
    for name, prompt in (("captions", "Generate caption in en"), ("vqa", "Answer in en: What")):
        task = seqio.TaskRegistry.get(f"coco_sample_{name}")
        step = next(read_steps(task, "train"))
        step.check(info := step_format(task).info)
        assert info.fill_prompt(step.text).startswith(prompt)
        assert max(decode_image(step.images[0]).shape) == 256


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A data folder of 160 pictures of the world, and 8 of its validation."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_pictures(PictureSettings(scenes=40, validation_scenes=2), folder, jobs=1)
    return folder


@pytest.fixture
def picture_steps(drawn, monkeypatch):
    """Every step of the mixture `rt2_pictures`, by the task's last word."""
    monkeypatch.setenv("RT2_DATA_DIR", str(drawn))
    return {
        task.name.rpartition("_")[2]: (step_format(task).info, list(read_steps(task, "train")))
        for task, _ in find_tasks("rt2_pictures")
    }


def test_the_pictures_of_the_world_give_every_kind_of_web_example(picture_steps):
    assert set(picture_steps) == {"detection", "pointing", "captions", "vqa"}
    for info, steps in picture_steps.values():
        assert len(steps) == 160
        for step in steps:
            step.check(info)


def test_no_text_about_pictures_of_the_world_holds_an_action_token(picture_steps):
    vocabulary = load_vocabulary()
    actions = set(ActionVocabulary.from_integer_pieces(vocabulary).ids)
    assert len(actions) == 256
    for info, steps in picture_steps.values():
        for step in steps:
            for text in (info.fill_prompt(step.text), step.target):
                assert not actions & set(vocabulary.encode(text)), text


def test_texts_about_pictures_of_the_world_fit_the_tiny_models_lengths(picture_steps):
    vocabulary, longest = load_vocabulary(), collections.Counter()
    for info, steps in picture_steps.values():
        for step in steps:
            prompt = vocabulary.encode(info.fill_prompt(step.text))
            longest["prompt"] = max(longest["prompt"], len(prompt) + 1)
            longest["target"] = max(longest["target"], len(vocabulary.encode(step.target)) + 1)
    assert longest["prompt"] <= 24
    assert longest["target"] <= 28


def test_a_list_of_six_things_fits_27_tokens(picture_steps):
    vocabulary = load_vocabulary()
    for step in picture_steps["detection"][1]:
        tokens, things = vocabulary.encode(step.target), len(parse_places(step.target))
        assert 4 * things <= len(tokens) <= 27


def test_what_is_pointed_to_is_in_the_list_of_all_things(picture_steps):
    lists = {step.episode_id: step.target for step in picture_steps["detection"][1]}
    for step in picture_steps["pointing"][1]:
        assert step.target in lists[step.episode_id]
        assert step.target.startswith(f"{step.text}<loc")


def test_places_are_those_of_the_boxes(picture_steps, drawn):
    instances = json.loads((drawn / "rt2_pictures/train/instances.json").read_text())
    middles = collections.defaultdict(list)
    for thing in instances["annotations"]:
        left, top, width, height = thing["bbox"]
        middles[str(thing["image_id"])].append(((top + height / 2) / 64, (left + width / 2) / 64))
    for step in picture_steps["detection"][1]:
        found = sorted(parse_places(step.target))
        assert len(found) == len(middles[step.episode_id])
        for place in found:
            nearest = min(
                max(abs(y - place[0]), abs(x - place[1])) for y, x in middles[step.episode_id]
            )
            assert nearest <= 0.5 / 16 + 1e-3


def test_pictures_for_validation_are_others(drawn, monkeypatch, tmp_path):
    monkeypatch.setenv("RT2_DATA_DIR", str(drawn))
    task = seqio.TaskRegistry.get("rt2_pictures_pointing")
    assert cache_task(task, tmp_path, split="validation").steps == 8
    train, validation = ({s.images[0] for s in read_steps(task, x)} for x in task.splits)
    assert not train & validation


def test_things_in_the_sample_photos_have_places(sample):
    for name, prompt in (("detection", "Detect the objects"), ("pointing", "Point to the ")):
        task = seqio.TaskRegistry.get(f"coco_sample_{name}")
        step = next(read_steps(task, "train"))
        step.check(info := step_format(task).info)
        assert info.fill_prompt(step.text).startswith(prompt)
        assert parse_places(step.target)
