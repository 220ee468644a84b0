"""The examples of docs/data.md run as they stand, and no public name is hidden by a module."""

import re
from pathlib import Path
from types import ModuleType

import seqio

import rt2_jax.data
from rt2_jax.data.resolve import find_tasks

PAGE = (Path(__file__).parents[2] / "docs/data.md").read_text()
REGISTER, TRAIN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_registers_tasks_and_a_mixture(registry):
    exec(REGISTER, {})
    assert [task.name for task, _ in find_tasks("my_mixture")] == ["my_arm", "my_photos"]
    assert seqio.TaskRegistry.get("my_arm").splits == ("train", "validation")


def test_the_example_makes_batches(mixture, tmp_path):
    program = TRAIN.replace('"cache', f'"{tmp_path}').replace("bridge_sample_mix", "half")
    names = {}
    exec(program.replace("    ...", "    break"), names)
    assert names["batch"]["images"].shape == (256, 2, 64, 64, 3)


def test_every_public_name_is_what_it_says():
    for name in rt2_jax.data.__all__:
        assert not isinstance(getattr(rt2_jax.data, name), ModuleType), name
