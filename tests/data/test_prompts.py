"""Prompts: each backbone's words for every kind of task, and optional slots for metadata."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.prompt_template import fill_prompt, slot_names, with_slots
from rt2_jax.data.prompts import PROMPTS, prompt_of
from rt2_jax.data.registration import derive_task, step_format
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.task_info import TaskInfo

from .conftest import robot_steps, web_steps


@pytest.mark.parametrize(
    ("kind", "text", "palix", "palme"),
    [
        (
            "robot",
            "pick the cup",
            "Q: what action should the robot take to pick the cup? A:",
            "Q: what action should the robot take to pick the cup? A:",
        ),
        ("plan", "I'm hungry", "Instruction: I'm hungry. Plan:", "Instruction: I'm hungry. Plan:"),
        ("caption", "", "Generate caption in en", "Q: what does the image show? A:"),
        ("vqa", "what is it?", "Answer in en: what is it?", "Q: what is it? A:"),
        (
            "vqg",
            "a cat",
            "Generate a question in en for a cat",
            "Q: what question has the answer a cat? A:",
        ),
        (
            "split_caption",
            "2: a red",
            "Generate the alt_text in en at 2: a red",
            "Q: how does the caption go on at 2: a red? A:",
        ),
        ("ocr", "", "Generate the ocr_text in en", "Q: what is written in the image? A:"),
        ("pointing", "cup", "Point to the cup", "Q: where is the cup? A:"),
        ("text", "a <s0> b", "a <s0> b", "a <s0> b"),
    ],
)
def test_each_backbone_has_its_words(kind, text, palix, palme):
    assert fill_prompt(prompt_of(kind), text) == palix
    assert fill_prompt(prompt_of(kind, "palme"), text) == palme


def test_both_backbones_have_every_kind_and_an_unknown_one_is_named():
    assert set(PROMPTS["palix"]) == set(PROMPTS["palme"])
    with pytest.raises(KeyError, match="no prompts of backbone 'pali'; there are palix, palme"):
        prompt_of("vqa", "pali")
    with pytest.raises(KeyError, match="no prompt of kind 'quiz'; there are robot, plan, cap"):
        prompt_of("quiz")


def test_a_source_is_registered_under_another_prompt_by_name(web):
    derive_task(web().name, "cups_palme", prompt=prompt_of("vqa", "palme"))
    first, second = (seqio.TaskRegistry.get(name) for name in ("cups", "cups_palme"))
    for a, b in zip(read_steps(first, "train"), read_steps(second, "train"), strict=True):
        assert (a.images, a.text, a.target) == (b.images, b.text, b.target)
    info = step_format(second).info
    assert (info.name, info.prompt) == ("cups_palme", "Q: {text} A:")
    assert step_format(first).info.prompt == "Answer in en: {text}"


SLOTS = "Q: {text}?[ Quality: {quality}.][ Speed: {speed} m/s.] A:"


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("pick", "Q: pick? A:"),
        ("pick\nspeed: 0.2", "Q: pick? Speed: 0.2 m/s. A:"),
        ("pick\nspeed: 0.2\nquality: good", "Q: pick? Quality: good. Speed: 0.2 m/s. A:"),
        ("pick\nquality:", "Q: pick? A:"),
        ("{speed} [x]\nquality: {text}", "Q: {speed} [x]? Quality: {text}. A:"),
    ],
)
def test_a_slot_without_a_value_leaves_no_trace(text, filled):
    assert fill_prompt(SLOTS, text) == filled
    assert slot_names(SLOTS) == ("quality", "speed")


def test_values_that_are_joined_to_a_text_are_filled_again():
    text = with_slots("pick\nthe  cup", {"speed": "0.2", "quality": " ", "ignored": ""})
    assert text == "pick the cup\nspeed: 0.2"
    assert fill_prompt(SLOTS, text) == "Q: pick the cup? Speed: 0.2 m/s. A:"


@pytest.mark.parametrize("line", ["sped: 1", "quickly", "speed: 1\nspeed: 2"])
def test_a_line_that_is_no_slot_is_refused(line):
    with pytest.raises(ValueError, match="found the line .* expected 'NAME: value' of one of qual"):
        fill_prompt(SLOTS, f"pick\n{line}")


def test_a_prompt_without_slots_takes_all_lines_and_braces_of_a_text():
    assert fill_prompt("Answer [in] en: {text}", "a\nb: {c}") == "Answer [in] en: a\nb: {c}"


@pytest.mark.parametrize("prompt", ["{text} {speed}", "{text}[ {a}][ {a}]", "{text}[ at {text}]"])
def test_a_prompt_that_cannot_be_filled_is_refused(prompt):
    with pytest.raises(ValueError, match="task 'cups': prompt .* every other field once and in br"):
        TaskInfo("cups", prompt, ())


def add(**columns):
    """A preprocessor that gives steps further columns: lists with a value for each step."""

    def preprocess(dataset):
        values = tf.data.Dataset.from_tensor_slices(columns)
        return tf.data.Dataset.zip(dataset, values).map(lambda step, more: {**step, **more})

    return preprocess


def test_slots_are_filled_from_columns_and_constants_and_reach_the_prompt(robot, tmp_path):
    task = robot(
        steps=robot_steps(lengths=(4,)),
        prompt="Q: {text}?[ Mode: {mode}.][ Quality: {quality}.][ Speed: {speed}.][ No: {no}.] A:",
        slots={"mode": "end effector", "quality": "3"},
        preprocessors=[add(quality=["5", "", " two\nlines ", "1"], speed=[1.5, np.nan, 0.1, 2])],
    )
    prompts = [
        "Q: pick object 0? Mode: end effector. Quality: 5. Speed: 1.5. A:",
        "Q: pick object 0? Mode: end effector. A:",
        "Q: pick object 0? Mode: end effector. Quality: two lines. Speed: 0.1. A:",
        "Q: pick object 0? Mode: end effector. Quality: 1. Speed: 2. A:",
    ]
    steps = list(read_steps(task, "train"))
    assert [step_format(task).info.fill_prompt(step.text) for step in steps] == prompts
    values = {"mode": "end effector", "quality": "5", "speed": "1.5"}
    assert steps[0].text == with_slots("pick object 0", values), "as a robot's request says it"
    info = cache_task(task, tmp_path)
    assert {info.task.fill_prompt(text) for text in info.longest_texts} == set(prompts)


def test_what_is_neither_field_slot_nor_column_is_refused(robot):
    with pytest.raises(ValueError, match=r"values for the slots \['mode'\], but prompt"):
        robot(slots={"mode": "joint"})
    with pytest.raises(ValueError, match=r"\['state'\] are fields, not slots or columns"):
        robot(columns=["state"])
    task = robot(preprocessors=[add(speed=[1.0] * 9)])
    with pytest.raises(ValueError, match="field 'speed' of a step is unknown"):
        list(read_steps(task, "train"))
    task = robot("many", prompt="{text}[ at {speed}]", preprocessors=[add(speed=[[1.0, 2.0]] * 9)])
    with pytest.raises(ValueError, match="column 'speed', of a slot of the prompt, has rank 1"):
        list(read_steps(task, "train"))


def test_web_tasks_have_slots_too(web):
    task = web(
        steps=web_steps(2),
        prompt="Answer in[ {language}]: {text}",
        preprocessors=[add(language=["en", ""])],
    )
    prompts = [step_format(task).info.fill_prompt(s.text) for s in read_steps(task, "train")]
    assert prompts == ["Answer in en: what is in place 0?", "Answer in: what is in place 1?"]
