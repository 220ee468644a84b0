"""The Open X-Embodiment table: every data set's steps, against Octo's and OpenVLA's own results."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import seqio
import tensorflow as tf

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.statistics import compute_statistics, resolve_bounds
from rt2_jax.data.registration import step_format
from rt2_jax.data.step import TaskStep
from rt2_jax.tasks import oxe

EPISODES = runpy.run_path(str(Path(__file__).with_name("oxe_episodes.py")))
nested, raw_steps = EPISODES["nested"], EPISODES["raw_steps"]
ROWS = oxe.read_rows()
# Made once by the standardisation functions of octo-models/octo and openvla/openvla on these
# episodes; "both" is what the two agree on.
GOLDEN = json.loads(Path(__file__).with_name("oxe_golden.json").read_text())
CASES = [
    (name, who, np.float32(actions))
    for group, whose in {
        "both": ["octo", "openvla"],
        "octo": ["octo"],
        "openvla": ["openvla"],
    }.items()
    for name, actions in GOLDEN[group].items()
    for who in whose[-1:]
]


def episodes(name, steps):
    """An in-memory data set of one RLDS episode."""
    around = {
        "tfds_id": f"{name}-train__0",
        "success": True,
        "episode_metadata": {"has_language": True},
    }
    return tf.data.Dataset.from_tensors((nested(steps), around)).map(
        lambda tree, rest: {**rest, "steps": tf.data.Dataset.from_tensor_slices(tree)}
    )


def task_steps(task, name, steps):
    dataset = seqio.TaskRegistry.get(task).preprocess_precache(episodes(name, steps))
    return [
        TaskStep(
            **{
                **step,
                "images": tuple(step["images"]),
                **{key: step[key].decode() for key in ("text", "target", "episode_id")},
            }
        )
        for step in dataset.as_numpy_iterator()
    ]


def columns(task, steps):
    """The columns of a registered task, of the fields that it reads."""
    preprocessor = seqio.TaskRegistry.get(task).preprocessors[0]
    tensors = {path: tf.constant(values) for path, values in steps.items()}
    return {name: values.numpy() for name, values in preprocessor.episode(tensors).items()}


@pytest.mark.parametrize(("name", "who", "expected"), CASES)
def test_actions_are_those_of_the_published_transforms(name, who, expected):
    found = columns(oxe.task_name(name, who), raw_steps(name, ROWS[name]))["action"]
    np.testing.assert_allclose(found[:, 1:], expected, atol=1e-5)
    assert found[:, 0].tolist() == [1] * (len(found) - 1) + [0]
