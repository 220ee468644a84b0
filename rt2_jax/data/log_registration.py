"""The lines of Python that register an imported log as a task."""

from __future__ import annotations

import json
import pathlib

from rt2_jax.data.log_import import ImportedLog, slot_column
from rt2_jax.data.prompt_template import slot_names
from rt2_jax.data.registration import data_path
from rt2_jax.data.rlds import image_key

_MODULE = """\
import json

import tensorflow as tf

from rt2_jax.data import TaskInfo, data_path, rlds_source, robot_task, steps_of_episodes

FOLDER = {folder}
INFO = TaskInfo.from_json(json.loads((data_path(FOLDER) / "metadata.json").read_text())["rt2_task"])


def to_step(step):
    seen = step["observation"]
    return {{
{fields}
    }}


robot_task(
    {name},
    rlds_source(FOLDER, {{"train": "train"}}),
    embodiment=INFO.robot.embodiment,
    action_space=INFO.robot.action_space,
    views=INFO.views,
    state_fields=INFO.robot.state_fields,
    image_size=INFO.image_size,
    prompt=INFO.prompt,
    read_from=FOLDER,
    preprocessors=[steps_of_episodes(to_step, episode_id=lambda episode: episode["episode_id"])],
)
"""


def registration(result: ImportedLog) -> str:
    """A module that registers the data set under its name; put it into a file of your own."""
    info = result.info
    assert info.robot is not None
    seen = ", ".join(f'seen["{image_key(view)}"]' for view in info.views)
    fields = {
        "images": f"tf.stack([{seen}])",
        "text": 'step["language_instruction"]',
        "action": 'step["action"]',
    }
    if info.robot.state_fields:
        fields["state"] = 'seen["state"]'
    if result.plans:
        fields["target"] = 'step["plan"]'
    for slot in slot_names(info.prompt):
        fields[slot] = f'step["{slot_column(slot)}"]'
    return _MODULE.format(
        folder=json.dumps(_below_data(result.directory)),
        name=json.dumps(info.name),
        fields="\n".join(f'        "{key}": {value},' for key, value in fields.items()),
    )


def _below_data(directory: pathlib.Path) -> str:
    """The folder as `data_path` takes it: relative where it is below the folder of all data."""
    directory, data = directory.resolve(), data_path("").resolve()
    return str(directory.relative_to(data) if directory.is_relative_to(data) else directory)
