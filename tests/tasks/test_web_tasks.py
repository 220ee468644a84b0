"""The registered web and chain-of-thought tasks: declared in full, and real on the sample data."""

import json

import pytest
import seqio

from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.registration import step_format
from rt2_jax.data.resolve import find_tasks
from rt2_jax.data.step_reader import read_steps
from rt2_jax.tasks import plans, web

TASKS = sorted(
    name
    for name in seqio.TaskRegistry.names()
    if step_format(seqio.TaskRegistry.get(name)).info.robot is None or name.endswith("_cot")
)


@pytest.fixture
def sample(shared_data, monkeypatch):
    monkeypatch.setenv("RT2_DATA_DIR", str(shared_data))


def first(name):
    """The filled prompt and the target of a task's first step."""
    task = seqio.TaskRegistry.get(name)
    step = next(read_steps(task, "train"))
    info = step_format(task).info
    step.check(info)
    return info.fill_prompt(step.text), step.target


@pytest.mark.parametrize("name", TASKS)
def test_data_that_are_not_here_are_named(name, monkeypatch, tmp_path):
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    task = seqio.TaskRegistry.get(name)
    assert step_format(task).read_from
    for split in task.splits:
        with pytest.raises((FileNotFoundError, ValueError), match="RT2_DATA_DIR"):
            next(read_steps(task, split))


def test_the_public_sets_are_registered():
    assert set(TASKS) >= {
        *("coco_captions", "tfds_coco_captions", "cc3m_captions", "cc12m_captions"),
        *("laion_captions", "laion_split_captions", "vqa_v2", "ok_vqa", "a_ok_vqa", "text_vqa"),
        *("ocr_vqa", "vqa_v2_vqg", "a_ok_vqa_reasons", "text_ocr", "c4_spans", "bridge_cot"),
    }
    for name in web.KINDS:
        assert first_prompt(f"{name}_palme") != first_prompt(name)


def first_prompt(name):
    return step_format(seqio.TaskRegistry.get(name)).info.prompt


@pytest.mark.parametrize(
    ("mixture", "shares"),
    [
        ("palix_web", {"laion_split_captions": 1000 / 1566, "coco_detection": 16 / 1566}),
        ("palme_web", {"laion_captions_palme": 100 / 174, "ok_vqa_palme": 1 / 174}),
    ],
)
def test_the_papers_weights_are_the_mixtures_rates(mixture, shares):
    found = {task.name: share for task, share in find_tasks(mixture)}
    for name, share in shares.items():
        assert found[name] == pytest.approx(share)


@pytest.mark.parametrize(
    ("name", "prompt", "target"),
    [
        ("vqg", "Generate a question in en for bathroom", "What room of the house is this man in?"),
        (
            "choices",
            "Answer in en: What room of the house is this man in? Choose from: sitting room, "
            "dinning room, bathroom, bedroom.",
            "bathroom",
        ),
        (
            "reasons",
            "Answer in en with a reason: What room of the house is this man in?",
            "The man is standing in front of a sink that contains a toothbrush on the counter and "
            "this is often found in a bathroom. So the answer is bathroom.",
        ),
        ("vqa_palme", "Q: What room of the house is this man in? A:", "bathroom"),
    ],
)
def test_a_real_question_is_asked_in_every_way(sample, name, prompt, target):
    assert first(f"coco_sample_{name}") == (prompt, target)


def test_real_captions_are_split_and_objects_asked_for(sample):
    whole = first("coco_sample_captions")[1]
    prompt, rest = first("coco_sample_split_captions")
    assert prompt.startswith("Generate the alt_text in en at ")
    assert f"{prompt.split(':', 1)[1]} {rest}".split() == whole.split()
    prompt, names = first("coco_sample_object_questions")
    assert prompt == "Answer in en: List the objects present" and names


def test_real_text_has_spans_to_find_again(sample):
    prompt, target = first("novel_sample_spans")
    assert "<extra_id_0>" in prompt and target.startswith("<extra_id_0> ")


def test_real_bridge_episodes_get_plans_from_a_file(shared_data, tmp_path, monkeypatch):
    (tmp_path / "robot").symlink_to(shared_data / "robot")
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    base = list(read_steps(seqio.TaskRegistry.get("bridge_sample"), "train"))
    assert base[0].episode_id.startswith("bridge_data_v1/berkeley/toysink2_bww/put_")
    assert len({step.episode_id for step in base}) == 20
    labels = {step.episode_id: {"0-4": "reach", "5-": step.text} for step in base}
    (tmp_path / "bridge_plans.json").write_text(json.dumps(labels))
    task = seqio.TaskRegistry.get("bridge_sample_cot")
    assert cache_task(task, tmp_path / "cache").steps == 200
    steps = list(read_steps(task, "train"))
    assert steps[4].target == "reach. Action:"
    assert steps[5].target == f"{steps[5].text}. Action:"
    prompt = step_format(task).info.fill_prompt(steps[0].text)
    assert prompt == f"Instruction: {steps[0].text}. Plan:"


def test_the_table_tops_plans_are_a_chain_of_thought(tmp_path, monkeypatch):
    from rt2_jax.sim.record import RecordSettings, record

    assert plans.tabletop
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    record(RecordSettings(episodes=2), tmp_path, jobs=1)
    prompt, target = first("rt2_tabletop_reach_cot")
    assert prompt.startswith("Instruction: ") and prompt.endswith(". Plan:")
    assert target.endswith(" Action:") and target.split()[-6] in ("over", "down")
