"""The registered tasks: each is declared in full, and those with sample data can be trained on."""

import numpy as np
import pytest
import seqio

from rt2_jax.actions.binning import UniformBins
from rt2_jax.data.cache_writer import cache_task, read_steps
from rt2_jax.data.image import decode_image
from rt2_jax.data.registration import step_format
from rt2_jax.data.resolve import find_tasks, resolve_mixture
from rt2_jax.sim.record import RecordSettings, record
from rt2_jax.tasks import mixtures

MIXTURES = ("rt2_tabletop", "bridge_mix", "bridge_sample_mix", "tabletop_photos_mix")
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


@pytest.mark.parametrize("name", MIXTURES[1:])
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
