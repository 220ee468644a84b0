"""The examples of the pages run as they stand, and no public name is hidden by a module."""

import re
from pathlib import Path
from types import ModuleType

import seqio

import rt2_jax.data
from rt2_jax.data.resolve import find_tasks

DOCS = Path(__file__).parents[2] / "docs"


def examples(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


REGISTER, TRAIN = examples("data.md")


def test_the_example_registers_tasks_and_a_mixture(registry):
    exec(REGISTER, {})
    assert [task.name for task, _ in find_tasks("my_mixture")] == ["my_arm", "my_photos"]
    assert seqio.TaskRegistry.get("my_arm").splits == ("train", "validation")


def test_the_examples_of_web_sources_are_sources_and_a_task(registry):
    splits = []
    for example in examples("web_data.md"):
        names = {}
        exec(example, names)
        splits.append(names["source"].splits)
    assert splits == [("train", "validation")] * 2
    assert "my_reasons" in seqio.TaskRegistry.names()


def test_the_example_makes_batches(mixture, tmp_path):
    program = TRAIN.replace('"cache', f'"{tmp_path}').replace("bridge_sample_mix", "half")
    names = {}
    exec(program.replace("    ...", "    break"), names)
    assert names["batch"]["images"].shape == (256, 2, 64, 64, 3)


def test_every_public_name_is_what_it_says():
    for name in rt2_jax.data.__all__:
        assert not isinstance(getattr(rt2_jax.data, name), ModuleType), name
