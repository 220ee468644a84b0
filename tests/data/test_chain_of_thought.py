"""Chain of thought: any robot task gets plans from a column, a function or a file."""

import json
import logging

import numpy as np
import pytest
import seqio

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.space import rt2_action_space
from rt2_jax.actions.statistics import resolve_bounds
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.examples import mixture_examples
from rt2_jax.data.manifest import open_caches
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.plans import PlanFile, plan_column, with_plans
from rt2_jax.data.registration import step_format
from rt2_jax.data.resolve import resolve_mixture
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

from .conftest import robot_steps
from .test_prompts import add


def plans_of(task):
    return [step.target for step in read_steps(task, "train")]


def test_the_papers_example_is_written_as_it_stands(robot):
    (step, *_) = robot_steps(lengths=(1,))
    robot(steps=[{**step, "text": "I'm hungry"}])
    task = with_plans("arm_pick", "cot", lambda step: "pick rxbar chocolate.")
    (planned,) = read_steps(task, "train")
    levels = np.array([[1, 128, 124, 136, 121, 158, 111, 255]])
    space = rt2_action_space(
        "fixed",
        translation_bound_m=0.1,
        rotation_bound_rad=0.5,
        gripper_polarity="high_is_open",
        control_rate_hz=3.0,
    )
    action = UniformBins().bind(space, resolve_bounds(space)).to_text(levels)
    written = f"{step_format(task).info.fill_prompt(planned.text)} {planned.target} {action}."
    assert written == (
        "Instruction: I'm hungry. Plan: pick rxbar chocolate. "
        "Action: 1 128 124 136 121 158 111 255."
    )


def test_a_function_sees_the_step_in_words_and_everything_else_stays(robot):
    seen = []

    def plan(step):
        seen.append((step["text"], step["episode_id"], int(step["step"]), step["state"].shape))
        return f"go on with {step['text'].removeprefix('pick ')}"

    base = list(read_steps(robot(), "train"))
    planned = list(read_steps(with_plans("arm_pick", "cot", plan), "train"))
    assert seen[1] == ("pick object 0", "demo-0", 1, (2,))
    assert planned[8].target == "go on with object 2. Action:"
    for a, b in zip(base, planned, strict=True):
        assert (a.images, a.text, a.episode, a.step) == (b.images, b.text, b.episode, b.step)
        np.testing.assert_array_equal(a.action, b.action)


def test_a_column_of_the_steps_is_a_plan_and_is_not_cached(robot):
    robot(
        columns=["subtask"],
        prompt="Q: {text}?[ Speed: {speed}.] A:",
        preprocessors=[add(subtask=[f"part {i}" for i in range(9)], speed=[1] * 9)],
    )
    task = with_plans("arm_pick", "cot", plan_column("subtask"), target="{plan}")
    assert plans_of(task) == [f"part {i}" for i in range(9)]
    assert next(read_steps(task, "train")).text == "pick object 0", "the new prompt has no slot"
    task = with_plans("arm_pick", "none", plan_column("task"))
    with pytest.raises(ValueError, match="no column 'task' for plans; the steps have action, epi"):
        plans_of(task)


@pytest.fixture
def file(robot, tmp_path, monkeypatch):
    """`file(plans)`: a chain-of-thought task of three episodes (3, 4, 2 steps) with this file."""
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    robot()

    def make(plans, name="cot", **options):
        (tmp_path / "plans.json").write_text(json.dumps(plans))
        return with_plans("arm_pick", name, PlanFile("plans.json"), target="{plan}", **options)

    return make


WHOLE = {
    "demo-0": "pick it",
    "demo-1": {"0-1": "reach", "2": "grasp", "3-": "lift"},
    "demo-2": ["a", "b"],
}


def test_a_file_has_a_plan_for_an_episode_for_ranges_or_for_each_step(file):
    plans = ["pick it"] * 3 + ["reach", "reach", "grasp", "lift", "a", "b"]
    assert plans_of(file(WHOLE)) == plans


def test_an_edited_file_is_read_again(file, tmp_path):
    task = file(WHOLE)
    assert plans_of(task)[0] == "pick it"
    (tmp_path / "plans.json").write_text(json.dumps({**WHOLE, "demo-0": "pick that"}))
    assert plans_of(task)[0] == "pick that"


@pytest.mark.parametrize(
    ("change", "episode", "step"),
    [
        ({"demo-1": None}, "1 \\('demo-1'\\)", 0),
        ({"demo-2": ["a"]}, "2 \\('demo-2'\\)", 1),
        ({"demo-1": {"0-2": "x"}}, "1 \\('demo-1'\\)", 3),
        ({"demo-0": " "}, "0 \\('demo-0'\\)", 0),
    ],
)
def test_a_missing_plan_is_an_error_that_names_its_episode(file, change, episode, step, tmp_path):
    task = file({**WHOLE, **change})
    with pytest.raises(ValueError, match=f"'cot', episode {episode}, step {step}: no plan; give"):
        cache_task(task, tmp_path / "cache")


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ({**WHOLE, "demo-0": {"0-2": "x", "1-": "y"}}, "'demo-0': step 1 has 2 plans"),
        ({**WHOLE, "demo-0": {"all": "x"}}, "'demo-0': found the steps 'all', expected such as"),
        ({**WHOLE, "demo-0": [7, "x"]}, "'demo-0': found 7 of step 0, expected a plan in words"),
        (["x"], "plans.json: found a list, expected an object of plans by episode id"),
    ],
)
def test_a_file_of_something_else_is_refused(file, plans, message):
    with pytest.raises(ValueError, match=message):
        plans_of(file(plans))


def test_two_episodes_of_one_name_cannot_be_told_apart_by_a_file(
    registry, robot, monkeypatch, tmp_path
):
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    (tmp_path / "plans.json").write_text(json.dumps({"twice": "x"}))
    robot(steps=[{**step, "episode_id": "twice"} for step in robot_steps()])
    with pytest.raises(
        ValueError, match="episodes 0 and 1 are both called 'twice', which plans by"
    ):
        plans_of(with_plans("arm_pick", "file", PlanFile("plans.json")))
    task = with_plans(
        "arm_pick", "function", lambda step: f"plan {step['episode']}", target="{plan}"
    )
    assert plans_of(task)[2:4] == ["plan 0", "plan 1"]


def test_two_episodes_of_one_name_in_two_shards_are_refused_when_all_are_cached(
    registry, robot, sharded, monkeypatch, tmp_path
):
    monkeypatch.setenv("RT2_DATA_DIR", str(tmp_path))
    (tmp_path / "plans.json").write_text(json.dumps({"twice": "x"}))
    robot(source=sharded([{**step, "episode_id": "twice"} for step in robot_steps()]))
    task = with_plans("arm_pick", "file", PlanFile("plans.json"))
    with pytest.raises(ValueError, match="source shard twice and one of twice are both called 'tw"):
        cache_task(task, tmp_path / "cache")
    task = with_plans("arm_pick", "same", lambda step: "x")
    assert cache_task(task, tmp_path / "cache").episodes == 3


def test_a_missing_file_is_named(file, tmp_path):
    task = file(WHOLE)
    (tmp_path / "plans.json").unlink()
    with pytest.raises(ValueError, match="no file .*plans.json; set RT2_DATA_DIR"):
        plans_of(task)


def test_steps_without_plans_can_be_left_out_and_runs_become_episodes(file, tmp_path, caplog):
    plans = {"demo-0": ["a", "b"], "demo-1": {"0": "c", "2-3": "d"}}
    task = file(plans, missing="leave_out")
    with caplog.at_level(logging.WARNING, "rt2_jax.data"):
        steps = list(read_steps(task, "train"))
    assert [(s.episode, s.step, s.episode_id, s.target) for s in steps] == [
        (0, 0, "demo-0", "a"),
        (0, 1, "demo-0", "b"),
        (1, 0, "demo-1", "c"),
        (2, 0, "demo-1", "d"),
        (2, 1, "demo-1", "d"),
    ]
    assert caplog.messages == ["task cot: 4 of 9 steps have no plan and are left out"]
    kept = [step.images for step in read_steps(seqio.TaskRegistry.get("arm_pick"), "train")]
    assert [step.images for step in steps] == [kept[i] for i in (0, 1, 3, 5, 6)]
    assert cache_task(task, tmp_path / "cache").episodes == 3


def test_a_model_learns_the_plan_then_the_action_of_the_derived_task(file, tmp_path):
    task = file(WHOLE)
    cache_task(task, tmp_path / "cache")
    manifest = resolve_mixture(task.name, tmp_path / "cache")
    tokenizer = load_vocabulary()
    spec = InputSpec((("front", 0),), (8, 8), encoder_length=32, decoder_length=24, plan_length=8)
    examples = mixture_examples(
        manifest,
        open_caches(manifest, tmp_path / "cache"),
        ModelInputs(spec, tokenizer),
        UniformBins(),
        ActionVocabulary.from_integer_pieces(tokenizer),
    )[0]
    example = examples.example(5)
    assert tokenizer.decode(example["decoder_target_tokens"][:8].tolist()).strip() == "grasp"
    prompt = tokenizer.decode(example["encoder_input_tokens"].tolist()).strip()
    assert prompt == "Instruction: pick object 1. Plan:"


def test_wrong_registrations_are_refused(robot, web):
    robot()
    web()
    with pytest.raises(ValueError, match="'cot': 'cups' is no robot task"):
        with_plans("cups", "cot", plan_column("target"))
    with pytest.raises(ValueError, match="'cot': missing: found 'skip', expected 'refuse' or"):
        with_plans("arm_pick", "cot", plan_column("target"), missing="skip")
